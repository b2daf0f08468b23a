"""README's figure: validation accuracy against seconds of training, from bench/results/time_to_accuracy.json.

    python bench/accuracy_figure.py [--out docs/accuracy.png]

A line is the mean of a recipe's seeds, epoch by epoch; where there are several, the band spans them. GPU recipes that
have not been measured are named beside it, not drawn.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from lucidate.report import theme

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "time_to_accuracy.json"
COLORS = (theme.LIGHT.slate, theme.LIGHT.sand, theme.LIGHT.right, theme.LIGHT.wrong)
NAMES = {"compact": "compact", "fast": "fast", "medium": "medium", "strong": "strong"}


def curves(runs: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(minutes (E,), accuracies (R, E)) of one recipe's runs; a run that stopped early ends the others'."""
    epochs = min(len(run["val_accuracy"]) for run in runs)
    minutes = np.mean([np.cumsum(run["epoch_seconds"])[:epochs] for run in runs], axis=0) / 60
    return minutes, np.array([run["val_accuracy"][:epochs] for run in runs])


def draw(results: list[dict[str, Any]], unmeasured: list[str], out: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.2), dpi=160)
    for place, name in enumerate(name for name in NAMES if any(run["recipe"] == name for run in results)):
        runs = [run for run in results if run["recipe"] == name]
        minutes, accuracies = curves(runs)
        color, mean = COLORS[place % len(COLORS)], accuracies.mean(0)
        axes.plot(minutes, mean, color=color, lw=2, marker="o", ms=3)
        if len(runs) > 1:
            axes.fill_between(minutes, accuracies.min(0), accuracies.max(0), color=color, alpha=0.2, lw=0)
        axes.annotate(
            f"{NAMES[name]} {mean[-1]:.1%}",
            (minutes[-1], mean[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=color,
            weight="bold",
        )
    axes.set_xscale("log")
    ticks = [0.5, 1, 2, 5, 10, 20, 40, 60]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(0.3, 110)
    axes.set_ylim(0.5, 0.95)
    axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("minutes of training on two cores, validation included (logarithmic)")
    axes.set_title("Validation accuracy, one view; CIFAR-10 re-encoded as JPEG", loc="left")
    if unmeasured:
        note = f"not measured for want of a GPU: {', '.join(unmeasured)}"
        axes.text(0.99, 0.03, note, transform=axes.transAxes, ha="right", color="gray", size=9)
    figure.tight_layout()
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "accuracy.png")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    measured = {run["recipe"] for run in results}
    recipes = sorted(path.stem for path in (ROOT / "recipes").glob("*.toml"))
    draw(results, [name for name in recipes if name.startswith("gpu") and name not in measured], options.out)


if __name__ == "__main__":
    main()
