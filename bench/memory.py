"""Peak memory of a training: on a data set as it is, and on one made ten times as large by repetition.

    python bench/memory.py --data FOLDER_OF_PARQUET [--recipe fast] [--times 10] [--seconds 60] [--json]

Each training runs in a process of its own, images already packed, and is stopped in order (SIGTERM) after some seconds;
its peak resident set is what the system reports of it, mapped files included. Packing is measured likewise. Writes
bench/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from lucidate.core import machine

RESULT = Path(__file__).with_name("results") / "memory.json"


def peak_gib(command: list[str], environment: dict[str, str], seconds: float | None = None) -> float:
    """Peak resident set of a command in GiB; it is asked to stop after `seconds`."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(seconds, process.send_signal, [signal.SIGTERM]) if seconds else None
    if timer:
        timer.start()
    assert process.stderr is not None
    errors = process.stderr.read()  # until it ends
    _, status, usage = os.wait4(process.pid, 0)
    if timer:
        timer.cancel()
    if os.waitstatus_to_exitcode(status) not in (0, 130):
        sys.exit(f"{' '.join(command)} failed:\n{errors[-2000:]}")
    return usage.ru_maxrss / 2**20


def repeated(folder: Path, times: int, out: Path) -> Path:
    """A Parquet folder whose training rows are those of `folder`, `times` times; no byte is copied."""
    shards = sorted(folder.rglob("train-*.parquet"))
    for number in range(times * len(shards)):
        source = shards[number % len(shards)]
        (out / f"train-{number:05d}-of-{times * len(shards):05d}.parquet").symlink_to(source.resolve())
    for source in folder.rglob("test-*.parquet"):
        (out / source.name).symlink_to(source.resolve())
    return out


def measure(source: Path, recipe: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Peaks of packing and of training, and how many images there are."""
    environment = {**os.environ, "LUCIDATE_CACHE": str(folder / "cache")}
    lucidate = [sys.executable, "-m", "lucidate"]
    packing = peak_gib([*lucidate, "data", "info", str(source)], environment)
    out = folder / "run"
    training = peak_gib([*lucidate, "train", recipe, "--data", str(source), "--out", str(out)], environment, seconds)
    card = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return {"images": card["data"]["images"], "packing_gib": packing, "training_gib": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sides = []
    for times in (1, options.times):
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "images").mkdir()
            source = repeated(options.data, times, Path(name) / "images")
            sides.append(measure(source, options.recipe, options.seconds, Path(name)))
            print(sides[-1], file=sys.stderr, flush=True)
    result = {"recipe": options.recipe, "runs": sides, "hardware": machine.hardware(), "versions": machine.versions()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
