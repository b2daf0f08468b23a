"""`lucidate run`: the whole main road."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lucidate.cli import console, stages
from lucidate.cli.options import Data, Device, Json, Out, RecipeArgument, Set
from lucidate.core.progress import Reporter


def run(
    recipe: RecipeArgument,
    data: Data = None,
    out: Out = None,
    set_: Set = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train, predict, analyze, and write the gallery.

    Example: lucidate run compact --data cifar10 --set train.epochs=5 --out runs/first
    """
    with console.reporter() as reporter:
        result = main_road(recipe, data=data, out=out, overrides=set_ or [], device=device, reporter=reporter)
    text = (
        f"validation accuracy {result['val_accuracy']:.4f}, test accuracy {result['test_accuracy']:.4f}, "
        f"{result['seconds']:.0f} s\nrun      {result['run']}\ngallery  {result['gallery']}"
    )
    console.emit(result, text, as_json=json)


def main_road(
    recipe: str, *, data: str | None, out: Path | None, overrides: list[str], device: str, reporter: Reporter
) -> dict[str, Any]:
    """Every stage in turn; the object that `--json` prints."""
    start = time.perf_counter()
    folder, card = stages.train(recipe, data=data, out=out, overrides=overrides, device=device, reporter=reporter)
    from lucidate.predict import predict_run
    from lucidate.report.gallery.of_run import gallery_of_run

    for split in ("validation", "test"):
        predict_run(folder, split, device=stages.pick_device(device), reporter=reporter)
    card = stages.finish(folder, seconds=time.perf_counter() - start)
    index = gallery_of_run(folder, reporter=reporter)
    return {
        "run": str(folder.path),
        "val_accuracy": card.results["val_accuracy"],
        "test_accuracy": card.results["test_accuracy"],
        "gallery": str(index),
        "seconds": round(time.perf_counter() - start, 2),
    }
