"""Each class by itself: its images in each split, its accuracy, and the probability that it gets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucidate.analysis.dataset import ClassDistribution
from lucidate.analysis.formatting import images, interval, percent
from lucidate.analysis.per_class import PerClassAccuracy, TrueClassProbability
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import DATA, ERRORS, TRUST, FigureEntry
from lucidate.report.figures.rows import RowChart, Series
from lucidate.report.theme import plotly_text, short_names


def distribution(info: ClassDistribution) -> RowChart:
    """Splits end to end, the classes in their order; of very many, those with the fewest images, fewest first."""
    rows, note = frame.limited(np.argsort(info.counts.sum(axis=0), kind="stable"), "with the fewest images")
    if not note:
        rows = np.sort(rows)
    names = [info.class_names[k] for k in rows]
    series = []
    for number, (split, counts) in enumerate(zip(info.splits, info.counts[:, rows], strict=True)):
        told = [images(size, plotly_text(split)) for size in counts.tolist()]
        hover = [f"{plotly_text(name)}<br>{words}" for name, words in zip(names, told, strict=True)]
        color = theme.SERIES[number % len(theme.SERIES)]
        series.append(Series(counts, color, hover, rows.tolist(), name=split))
    return RowChart(short_names(names), tuple(series), "Images", scale="count", bars=True, note=note)


def accuracy(info: PerClassAccuracy) -> RowChart:
    """Points with Wilson's 95 % intervals, the hardest class on top, and a line at the overall accuracy."""
    judged = np.argsort(info.accuracy, kind="stable")[: int((info.total > 0).sum())]
    rows, note = frame.limited(judged, "of the lowest accuracy")
    # Marked as wrong only where the whole interval lies below the overall accuracy.
    colors = [theme.LIGHT.wrong if info.high[k] < info.overall else theme.LIGHT.right for k in rows]
    hover = [
        f"<b>{plotly_text(info.class_names[k])}</b><br>"
        f"{percent(info.accuracy[k])} ({interval(info.low[k], info.high[k])})<br>"
        f"{info.correct[k]:,} of {info.total[k]:,} right"
        for k in rows
    ]
    points = Series(info.accuracy[rows], colors, hover, rows.tolist(), low=info.low[rows], high=info.high[rows])
    return RowChart(
        short_names([info.class_names[k] for k in rows]),
        (points,),
        "Accuracy, with its 95 % interval",
        limits=frame.from_round_tenth(float(np.nanmin(info.low))),
        line=(info.overall, f"overall {percent(info.overall)}"),
        note=note,
    )


def true_probability(info: TrueClassProbability) -> RowChart:
    """Two points a class and the line between them, the lowest mean on top."""
    judged = np.argsort(info.mean, kind="stable")[: int(np.isfinite(info.mean).sum())]
    rows, note = frame.limited(judged, "of the lowest mean")
    names = [info.class_names[k] for k in rows]
    mean, median = info.mean[rows], info.median[rows]

    def points(which: str, values: NDArray[np.float64], **look: Any) -> Series:
        hover = [
            f"<b>{plotly_text(name)}</b><br>{which} probability of the true class {percent(value)}"
            for name, value in zip(names, values, strict=True)
        ]
        return Series(values, hover=hover, data=rows.tolist(), name=which, **look)

    low, high = np.sort([mean, median], axis=0)
    medians = points("median", median, colors=theme.LIGHT.sand, symbol="diamond", low=low, high=high)
    means = points("mean", mean, colors=theme.LIGHT.right)
    limits = frame.from_round_tenth(float(np.nanmin([info.mean, info.median])))
    return RowChart(short_names(names), (medians, means), "Probability of the true class", limits=limits, note=note)


DISTRIBUTION = FigureEntry("class_distribution", "Class distribution", DATA, "class_distribution", rows=distribution)
PROBABILITY = "Average confidence in the true class"
AVERAGE = "{dataset}_avg_confidence_per_true_class"
FIGURES = (
    DISTRIBUTION,
    FigureEntry("{dataset}_per_class_accuracy", "Accuracy of each class", ERRORS, "per_class_accuracy", rows=accuracy),
    FigureEntry(AVERAGE, PROBABILITY, TRUST, "true_class_probability", rows=true_probability),
)
