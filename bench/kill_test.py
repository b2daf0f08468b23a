"""Kill commands with SIGKILL at random moments, call them again, and compare what they leave with what they leave when
nothing interrupts them.

    python bench/kill_test.py [--rounds 20] [--recipe digits] [--epochs 30]     trainings, killed until they are done
    python bench/kill_test.py --stages [train run …] [--kills 100]              every stage, killed once a round

A round of a stage kills the command at a moment between 50 ms and the whole of its time, calls it again as its user
would (a training that has begun with --resume), and asks for status 0, the same bytes, and no temporary file left. A
training is first called again without --resume: that must start clean or say in one line how to go on. Ends with
status 1 at the first difference. What it does not test: power cuts, and other machines, where sums may be rounded
otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lucidate.core import machine
from lucidate.core.atomic import TEMPORARY

SOONEST = 0.05  # seconds
SMALL = ["--set", "train.epochs=3"]
# Not "auto": a start that is killed before its run card stands would measure again which precision is faster.
LEVELS = ["--set", "levels.train_size=100", "--set", "train.epochs=1", "--set", "train.precision=float32"]
# What a stage leaves that holds no time of its making, below the folder it works in.
TRAINED = ("weights.safetensors",)
RUN = (*TRAINED, "splits.parquet", "predictions/*.parquet", "analysis/*.json")


@dataclass(frozen=True)
class Stage:
    """A command, in a folder of its own that holds a finished run in `run`, images in `photos` and an empty cache.

    same: patterns of files whose bytes must be the same. there: files that must exist.
    """

    arguments: tuple[str, ...]
    same: tuple[str, ...]
    there: tuple[str, ...] = ()
    resumes: bool = False


STAGES = {
    "train": Stage(("train", "digits", "--out", "out", *SMALL), tuple(f"out/{name}" for name in TRAINED), resumes=True),
    "run": Stage(
        ("run", "digits", "--out", "out", *SMALL),
        tuple(f"out/{name}" for name in RUN),
        ("out/gallery/index.html", "out/report.pdf"),
        resumes=True,
    ),
    "gallery": Stage(("gallery", "run"), ("run/gallery/**/*",), ("run/gallery/index.html",)),
    "report": Stage(("report", "run"), ("run/report.pdf",)),
    "export": Stage(("export", "run", "--format", "onnx"), ("run/export/model.onnx",), ("run/export/parity.json",)),
    "quantize": Stage(("quantize", "run"), ("run/export/model.int8.onnx",)),
    "explain": Stage(("explain", "run", "--split", "validation"), ("run/explain/*.np[yz]",)),
    "levels": Stage(
        ("levels", "--data", "digits", "--out", "out", *LEVELS),
        ("out/*/predictions/test.parquet",),
        ("out/report.pdf",),
    ),
    "pack": Stage(("data", "info", "photos"), ("cache/packs/*/images.npy", "cache/packs/*/labels.npy")),
}


def start(folder: Path, arguments: tuple[str, ...] | list[str], *, shared_cache: bool) -> subprocess.Popen[str]:
    cache = {} if shared_cache else {"LUCIDATE_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "lucidate", *arguments],
        cwd=folder,
        env={**os.environ, **cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate()
    return process.returncode, said


def make_template(folder: Path, *, images: int = 300) -> None:
    """A finished run of the digits with three epochs, without its gallery and report, and a folder of photos."""
    status, said = finish(start(folder, ["run", "digits", "--out", "run", *SMALL], shared_cache=True))
    if status:
        sys.exit(f"the run that stages begin with failed: {said}")
    shutil.rmtree(folder / "run" / "gallery")
    (folder / "run" / "report.pdf").unlink()
    generator = np.random.default_rng(0)
    for index in range(images):
        path = folder / "photos" / f"class-{index % 3}" / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path)


def digest(folder: Path, stage: Stage) -> str:
    """Of the names and bytes that must be the same; exits where a file that must exist does not."""
    found = sorted({path for pattern in stage.same for path in folder.glob(pattern) if path.is_file()})
    missing = [name for name in stage.there if not (folder / name).exists()]
    if missing or not found:
        sys.exit(f"{' '.join(stage.arguments)}: expected {', '.join(missing) or stage.same}, which is not there")
    whole = hashlib.sha256()
    for path in found:
        whole.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return whole.hexdigest()


def leftovers(folder: Path) -> list[str]:
    """Temporary folders below a folder that no process is writing to."""
    return [str(path) for path in folder.rglob(".*") if path.is_dir() and TEMPORARY.fullmatch(path.name)]


def begin(template: Path, folder: Path) -> Path:
    shutil.copytree(template, folder)
    return folder


def one_kill(name: str, folder: Path, *, after: float, expected: str) -> str:
    """Kill the stage once, call it again, compare; "killed", or "ended" if it was done before. Exits on differences."""
    stage, shared = STAGES[name], name != "pack"
    process = start(folder, stage.arguments, shared_cache=shared)
    try:
        process.communicate(timeout=after)
        outcome = "ended"
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        outcome = "killed"
    # One that had ended has made its run, which is not made twice.
    status, said = finish(start(folder, stage.arguments, shared_cache=shared))
    if status and stage.resumes:
        lines = said.splitlines()
        if status != 2 or not lines[-1].startswith("error: ") or "--resume" not in lines[-1]:
            sys.exit(f"{name}, killed after {after:.2f} s: called again, it ended with {status}: {said}")
        status, said = finish(start(folder, [*stage.arguments, "--resume"], shared_cache=shared))
    if status:
        sys.exit(f"{name}, killed after {after:.2f} s: called again, it ended with {status}: {said}")
    if digest(folder, stage) != expected:
        sys.exit(f"{name}, killed after {after:.2f} s: what it leaves differs")
    if left := leftovers(folder):
        sys.exit(f"{name}, killed after {after:.2f} s: {', '.join(left)} were left")
    return outcome


def kill_stages(names: list[str], *, kills: int, seed: int) -> dict[str, dict[str, float]]:
    """Kill each stage in turn until there have been so many kills; counts and whole seconds by stage."""
    generator = random.Random(seed)
    found: dict[str, dict[str, float]] = {}
    expected = {}
    with tempfile.TemporaryDirectory() as place:
        template = Path(place) / "template"
        template.mkdir()
        make_template(template)
        for name in names:
            folder = begin(template, Path(place) / name)
            since = time.monotonic()
            status, said = finish(start(folder, STAGES[name].arguments, shared_cache=name != "pack"))
            if status:
                sys.exit(f"{name}: uninterrupted, it ended with {status}: {said}")
            found[name] = {"kills": 0, "whole_seconds": round(time.monotonic() - since, 1)}
            expected[name] = digest(folder, STAGES[name])
            shutil.rmtree(folder)
            print(f"{name}: {found[name]['whole_seconds']} s uninterrupted", file=sys.stderr, flush=True)
        number = 0
        while sum(each["kills"] for each in found.values()) < kills:
            name = names[number % len(names)]
            folder = begin(template, Path(place) / f"{name}-{number}")
            after = generator.uniform(SOONEST, found[name]["whole_seconds"])
            outcome = one_kill(name, folder, after=after, expected=expected[name])
            found[name]["kills"] += outcome == "killed"
            shutil.rmtree(folder)
            number += 1
            print(f"{number}: {name}, {outcome} after {after:.2f} s: the same", file=sys.stderr, flush=True)
    return found


def kill_trainings(recipe: str, *, epochs: int | None, rounds: int, seed: int) -> dict[str, float]:
    """Kill a training again and again until it is done, and compare its weights; so many rounds."""
    generator = random.Random(seed)
    arguments = ["train", recipe, "--resume", *(["--set", f"train.epochs={epochs}"] if epochs else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        since = time.monotonic()
        status, said = finish(start(folder, [*arguments, "--out", "whole"], shared_cache=True))
        if status:
            sys.exit(f"the uninterrupted training failed: {said}")
        seconds = time.monotonic() - since
        expected = (folder / "whole" / "weights.safetensors").read_bytes()
        kills = 0
        for round_ in range(rounds):
            killed = 0
            while True:
                process = start(folder, [*arguments, "--out", f"round-{round_}"], shared_cache=True)
                try:
                    # The first moments of each life are imports: up to the whole duration, so that it also gets ahead.
                    _, said = process.communicate(timeout=generator.uniform(SOONEST, seconds))
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    killed += 1
            if process.returncode:
                sys.exit(f"round {round_}: the resumed training ended with status {process.returncode}: {said}")
            if (folder / f"round-{round_}" / "weights.safetensors").read_bytes() != expected:
                sys.exit(f"round {round_}: the weights differ after {killed} kills")
            kills += killed
            print(f"round {round_}: {killed} kills, same bytes", file=sys.stderr, flush=True)
    return {"rounds": rounds, "kills": kills, "whole_seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--stages", nargs="*", choices=list(STAGES), help="which; default: all of them")
    parser.add_argument("--kills", type=int, default=100, help="of all stages together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    if options.stages is not None:
        stages = kill_stages(options.stages or list(STAGES), kills=options.kills, seed=options.seed)
        result = {"kills": sum(each["kills"] for each in stages.values()), "stages": stages}
    else:
        result = kill_trainings(options.recipe, epochs=options.epochs, rounds=options.rounds, seed=options.seed)
    about = {"hardware": machine.hardware(), "versions": machine.versions()}
    print(json.dumps({**result, "identical": True, **about}))


if __name__ == "__main__":
    main()
