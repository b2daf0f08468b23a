"""Seconds of training to 70, 80, 82, 85, 88 and 90 % validation accuracy.

    python bench/time_to_accuracy.py fast compact --data SRC [--seeds 3] [--json]
    python bench/time_to_accuracy.py --runs runs/fast runs/fast-2 [--json]

The first form trains each recipe with seeds 0, 1, … into a temporary folder; the second reads the histories of runs
that stand. The clock counts the epochs, their validation included, up to the end of the first one whose validation
accuracy reached the mark; null where it never did. Validation sees one view of each image. The test split is not
touched. Writes bench/results/time_to_accuracy.json, where a run takes the place of an earlier one of the same recipe,
seed, images and hardware.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lucidate.core.records import History, RunCard
from lucidate.core.run import RunDir

MARKS = (0.70, 0.80, 0.82, 0.85, 0.88, 0.90)
RESULT = Path(__file__).with_name("results") / "time_to_accuracy.json"


def train(recipe: str, source: str, seed: int, out: Path) -> None:
    command = [sys.executable, "-m", "lucidate", "train", recipe, "--data", source, "--out", str(out)]
    subprocess.run([*command, "--set", f"seed={seed}"], check=True, stdout=subprocess.DEVNULL)


def reached(history: History) -> dict[str, float | None]:
    """Mark → seconds, null where validation never reached it."""
    result: dict[str, float | None] = {}
    for mark in MARKS:
        epochs = [place for place, value in enumerate(history.val_accuracy, 1) if value >= mark]
        result[f"{mark:.2f}"] = round(sum(history.epoch_seconds[: epochs[0]]), 1) if epochs else None
    return result


def outcome(folder: Path, recipe: str) -> dict[str, Any]:
    """What one run adds to the results."""
    run = RunDir.open(folder)
    card, history = RunCard.load(run.card), History.load(run.history)
    return {
        "recipe": recipe,
        "seed": card.seed,
        "seconds_to": reached(history),
        "val_accuracy": list(history.val_accuracy),
        "epoch_seconds": list(history.epoch_seconds),
        "precision": card.precision,
        "dataset": card.data.dataset,
        "pack": card.data.pack[:16],
        "results": card.results.model_dump(),
        "hardware": card.hardware,
        "versions": card.versions,
        "commit": card.commit,
    }


def merged(new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results on file with new ones in place of their like."""

    def key(item: dict[str, Any]) -> str:
        return json.dumps([item[name] for name in ("recipe", "seed", "pack", "hardware")], sort_keys=True)

    old = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    return sorted(
        ({key(item): item for item in [*old, *new]}).values(), key=lambda item: (item["recipe"], item["seed"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="finished runs, named RECIPE or RECIPE-…")
    parser.add_argument("--json", action="store_true", help="print the new results as one JSON object")
    options = parser.parse_args()
    new = [outcome(folder, folder.resolve().name.partition("-")[0]) for folder in options.runs]
    with tempfile.TemporaryDirectory() as name:
        for recipe in options.recipes:
            for seed in range(options.seeds):
                out = Path(name) / f"{Path(recipe).stem}-{seed}"
                train(recipe, options.data, seed, out)
                new.append(outcome(out, Path(recipe).stem))
    if not new:
        parser.error("expected recipes to train, or --runs")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(merged(new), indent=1) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps({"runs": new}))
        return
    print("recipe      seed  " + "  ".join(f"{mark:>6.0%}" for mark in MARKS))
    for item in new:
        seconds = ("     –" if value is None else f"{value:6.0f}" for value in item["seconds_to"].values())
        print(f"{item['recipe']:<10}  {item['seed']:>4}  " + "  ".join(seconds))


if __name__ == "__main__":
    main()
