"""Kill a training with SIGKILL at random moments, go on with it until it is done, and compare its bytes with those of
one that was never interrupted; 20 rounds.

    python bench/kill_test.py [--rounds 20] [--recipe digits] [--epochs 30] [--seed 0]

Each round kills after a random time in the life of the process, from its start (imports) to its end, so that some
kills hit a write of a checkpoint, and some the end. Ends with status 1 at the first difference. What it does not test:
power cuts, the packing of images, and other machines, where sums may be rounded otherwise.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lucidate.core import machine


def train(recipe: str, epochs: int | None, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lucidate", "train", recipe, "--out", str(out), "--resume"]
    command += ["--set", f"train.epochs={epochs}"] if epochs else []
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.monotonic()
        if train(options.recipe, options.epochs, folder / "whole").wait():
            sys.exit("the uninterrupted training failed")
        seconds = time.monotonic() - start
        expected = (folder / "whole" / "weights.safetensors").read_bytes()
        kills = []
        for round_ in range(options.rounds):
            out, killed = folder / f"round-{round_}", 0
            while True:
                process = train(options.recipe, options.epochs, out)
                try:
                    # The first moments of each life are imports: up to the whole duration, so that it also gets ahead.
                    process.wait(timeout=generator.uniform(0.2, seconds))
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    killed += 1
            if process.returncode:
                sys.exit(f"round {round_}: the resumed training ended with status {process.returncode}")
            if (out / "weights.safetensors").read_bytes() != expected:
                sys.exit(f"round {round_}: the weights differ after {killed} kills")
            kills.append(killed)
            print(f"round {round_}: {killed} kills, same bytes", file=sys.stderr, flush=True)
    result = {"rounds": options.rounds, "kills": sum(kills), "whole_seconds": round(seconds, 1), "identical": True}
    print(json.dumps({**result, "hardware": machine.hardware(), "versions": machine.versions()}))


if __name__ == "__main__":
    main()
