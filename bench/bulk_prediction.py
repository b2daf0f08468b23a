"""A folder of image files → predictions: `lucidate predict` against the loop that a PyTorch tutorial writes.

    lucidate quantize RUN && python bench/bulk_prediction.py RUN [--images 10000] [--turns 3] [--json]

The run's test images are written as PNG files into a temporary folder, a folder a class. Each turn every side predicts
all of them, in a process of its own, from its first import to its last file; the sides take turns, and each one's best
turn counts, since other work on the machine only ever slows one down.

- lucidate, cold: no file was ever seen before: read, hashed, decoded, packed, predicted. By each backend.
- lucidate, warm: the same command again; the files are hashed to see that they are the same, and not decoded.
- loader: Dataset, Pillow, torchvision's ToTensor and Normalize, DataLoader without workers and with two, batches of
  128, the same weights in eager NCHW float32, one view; the better of both counts. Its process gets our settings of
  threads and memory, so that work of others on the same cores hurts it no more than us.

A run with test-time views computes several times as much as the loader's one view: take one without. Writes
bench/results/bulk_prediction.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lucidate.cli.process import tune_process
from lucidate.core import machine
from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir

RESULT = Path(__file__).with_name("results") / "bulk_prediction.json"
BACKENDS = ("torch", "onnx", "onnx-int8")
WORKERS = (0, 2)
BATCH = 128


def write_files(run: RunDir, folder: Path, count: int) -> int:
    """The run's test images as PNG files, at most `count`; how many there are."""
    from PIL import Image

    from lucidate.data.splits import Splits, open_data

    pack = open_data(run).pack
    rows = Splits.load(run.splits).test[:count]
    for row in rows:
        place = folder / pack.class_names[pack.labels[row]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pack.images[row]).save(place / f"{row:06d}.png")
    return len(rows)


def loader(run: RunDir, folder: Path, workers: int) -> dict[str, float]:
    """What a PyTorch tutorial does; the share of right answers."""
    from lucidate.models.timm import declare_missing_operators

    declare_missing_operators()
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from lucidate.models.checkpoint import load_model

    card = RunCard.load(run.card)
    mean, std = card.preprocess["mean"], card.preprocess["std"]
    change = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    paths = sorted(folder.rglob("*.png"))

    class Files(Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
            with Image.open(paths[place]) as image:
                return change(image.convert("RGB")), card.classes.index(paths[place].parent.name)

    model, right = load_model(run).to(memory_format=torch.contiguous_format), 0
    with torch.no_grad():
        for images, labels in DataLoader(Files(), batch_size=BATCH, num_workers=workers):
            right += int((model(images).argmax(1) == labels).sum())
    return {"accuracy": right / len(paths)}


def timed(command: list[str], cache: Path) -> dict[str, float]:
    """A process's own figures, and how long it took from its start to its end."""
    start = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "LUCIDATE_CACHE": str(cache)}, capture_output=True, text=True, check=False
    )
    whole = time.perf_counter() - start
    if done.returncode:
        raise LucidateError(f"{' '.join(command)}: expected it to end well, received {done.stderr.strip()[-400:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    kept = ("accuracy", "images_per_second")
    return {"whole": whole, **{key: found[key] for key in kept if key in found}}


def compare(run: RunDir, count: int, turns: int) -> dict[str, Any]:
    """All sides in turn."""
    from lucidate.predict.backends import open_predictor

    for name in BACKENDS:
        open_predictor(name, run)  # each graph must have been made
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        images = write_files(run, place / "images", count)
        for turn in range(turns):
            sides: dict[str, tuple[list[str], Path]] = {}
            for name in BACKENDS:
                command = [sys.executable, "-m", "lucidate", "predict", str(run.path), "--data", str(place / "images")]
                command += ["--backend", name, "--out", str(place / "out.parquet"), "--json"]
                cache = place / f"cache-{turn}-{name}"
                sides |= {f"{name}_cold": (command, cache), f"{name}_warm": (command, cache)}
            for workers in WORKERS:
                command = [sys.executable, __file__, str(run.path), "--loader", str(place / "images")]
                sides[f"loader_{workers}"] = ([*command, "--workers", str(workers)], place / "none")
            for name, (command, cache) in sides.items():
                found.setdefault(name, []).append(timed(command, cache))
                print(f"turn {turn + 1}/{turns}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    return summarized(found, images)


def summarized(found: dict[str, list[dict[str, float]]], images: int) -> dict[str, Any]:
    """Each side's best turn, and how many times as fast as the loader each of ours is.

    images_per_second: of ours, without starting, finding and packing.
    """

    def best(name: str) -> float:
        return min(turn["whole"] for turn in found[name])

    ours = [f"{backend}_{state}" for backend in BACKENDS for state in ("cold", "warm")]
    loaders = [f"loader_{workers}" for workers in WORKERS]
    peer = min(best(name) for name in loaders)
    return {
        "images": images,
        "ratio": {name: peer / best(name) for name in ours},
        "seconds": {name: best(name) for name in [*ours, *loaders]},
        "images_per_second": {name: max(turn["images_per_second"] for turn in found[name]) for name in ours},
        "accuracy": {name: found[name][0]["accuracy"] for name in [*ours, *loaders]},
        "turns": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder, quantized")
    parser.add_argument("--images", type=int, default=10_000, help="of the test split, at most")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--loader", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    run = RunDir(options.run)
    if options.loader:
        tune_process()
        print(json.dumps(loader(run, options.loader, options.workers)))
        return
    try:
        result = compare(RunDir.open(run.path), options.images, options.turns)
    except LucidateError as error:
        sys.exit(f"error: {error}")
    card = RunCard.load(run.card)
    result |= {
        "model": card.recipe.model.name,
        "views": card.recipe.predict.views,
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(result))
        return
    for name, seconds in result["seconds"].items():
        ratio = f"{result['ratio'][name]:.2f} × the loader" if name in result["ratio"] else ""
        print(f"{name:16}{seconds:7.2f} s  {result['images'] / seconds:7,.0f} images/s  {ratio}")


if __name__ == "__main__":
    main()
