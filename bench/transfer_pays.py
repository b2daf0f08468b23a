"""When does transfer pay? Transfer learning and training from scratch, by equal minutes, on more and more images.

    python bench/transfer_pays.py [--data cifar10] [--sizes 100 1000 10000 45000] [--minutes 1 5 5 5] [--seeds 1]

One run a number of training images, recipe and seed: `transfer`, and `fast`, the best recipe from scratch for so few
minutes, with batches of at most a fourth of the images. Validation shrinks with the training images; the test split
stays whole. Minutes are those of the epochs; the head that `transfer` fits before them comes on top. A run that is
finished in --out is not repeated, and one that was stopped is begun anew: the clock of a budget cannot be resumed
fairly. Writes bench/results/transfer_pays.json and docs/transfer_pays.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from shutil import rmtree
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from lucidate.analysis.statistics import wilson_interval
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.report import theme

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "transfer_pays.json"
PICTURE = ROOT / "docs" / "transfer_pays.png"
RECIPES = {"transfer": theme.LIGHT.right, "fast": theme.LIGHT.slate}
# What the recipes do by epochs, as their files have it.
EPOCHS = {"fast": {"epochs": 13, "hard_epochs": 4, "input_epochs": 3}, "transfer": {"epochs": 100, "warmup_epochs": 5}}
LONG = 100  # times as many are more than any budget here allows


def settings(recipe: str, images: int, minutes: float, seed: int) -> list[str]:
    """What is changed of a recipe, as `--set` takes it."""
    found = [f"data.train_size={images}", "data.val_fraction=0.1", f"train.minutes={minutes}", f"seed={seed}"]
    if recipe == "fast":
        found.append(f"train.batch_size={max(min(500, images // 4), 16)}")
    # The schedule ends with the budget, and what it does by epochs, at the same share of it.
    return [*found, *(f"train.{key}={LONG * count}" for key, count in EPOCHS[recipe].items())]


def measure(recipe: str, images: int, minutes: float, seed: int, *, data: str, out: Path) -> dict[str, Any]:
    """One run's result, from its folder where it is finished."""
    run = RunDir(out / f"{recipe}-{images}-{minutes:g}-{seed}")
    if not run.card.exists() or RunCard.load(run.card).status != "finished":
        rmtree(run.path, ignore_errors=True)
        command = [sys.executable, "-m", "lucidate", "run", recipe, "--data", data, "--out", str(run.path)]
        for setting in settings(recipe, images, minutes, seed):
            command += ["--set", setting]
        subprocess.run(command, check=True)
    card, test = RunCard.load(run.card), Predictions.load(run.predictions("test"))
    low, high = wilson_interval(int(test.correct.sum()), len(test))
    return {
        "recipe": recipe,
        "train_images": card.split.sizes["train"],
        "minutes": minutes,
        "seed": seed,
        "val_accuracy": card.results.val_accuracy,
        "test_accuracy": test.accuracy,
        "test_interval": [float(low), float(high)],
        "test_images": len(test),
        "epochs": card.results.epochs,
        "train_seconds": card.results.train_seconds,
        "pack": card.data.pack,
        "hardware": card.hardware,
        "versions": card.versions,
        "commit": card.commit,
    }


def draw(results: list[dict[str, Any]], out: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.2), dpi=160)
    for recipe, color in RECIPES.items():
        mine = [item for item in results if item["recipe"] == recipe]
        sizes = sorted({item["train_images"] for item in mine})
        means = [sum(a) / len(a) for a in ([i["test_accuracy"] for i in mine if i["train_images"] == s] for s in sizes)]
        axes.plot(sizes, means, color=color, lw=2, marker="o")
        for item in mine:
            axes.vlines(item["train_images"], *item["test_interval"], color=color, alpha=0.4)
        name = "transfer (EfficientNet-Lite2, ImageNet)" if recipe == "transfer" else "from scratch (fast)"
        below, middle = recipe == "fast", len(sizes) // 2
        axes.annotate(
            name,
            (sizes[middle], means[middle]),
            xytext=(0, -38 if below else 22),
            textcoords="offset points",
            color=color,
            weight="bold",
            ha="center",
        )
        for size, mean in zip(sizes, means, strict=True):
            axes.annotate(
                f"{mean:.1%}", (size, mean), xytext=(4, -12 if below else 4), textcoords="offset points", size=8
            )
    budgets = {item["train_images"]: item["minutes"] for item in results}
    axes.set_xscale("log")
    axes.set_xticks(list(budgets), [f"{size:,}\n{minutes:g} min" for size, minutes in budgets.items()])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("training images (logarithmic), and minutes of training on two cores for either")
    axes.set_title("When does transfer pay? Test accuracy; CIFAR-10 re-encoded as JPEG", loc="left")
    figure.tight_layout()
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000, 45_000])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 5, 5], help="one for each size")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "transfer_pays")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args()
    if len(options.sizes) != len(options.minutes):
        parser.error("--minutes: expected one for each of --sizes")
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in range(options.seeds):
        for images, minutes in zip(options.sizes, options.minutes, strict=True):
            results += [
                measure(recipe, images, minutes, seed, data=options.data, out=options.out) for recipe in RECIPES
            ]
            RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(results, PICTURE)
    if options.json:
        print(json.dumps({"runs": results}))
        return
    for item in results:
        print(f"{item['train_images']:>7,} images  {item['recipe']:<9} {item['test_accuracy']:.4f}")


if __name__ == "__main__":
    main()
