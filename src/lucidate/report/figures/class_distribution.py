"""Images of each class, split by split."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from lucidate.analyze.class_distribution import ClassDistribution
from lucidate.analyze.wording import images
from lucidate.report import theme, ticks

TITLE = "Class distribution"


def draw_plotly(info: ClassDistribution) -> go.Figure:
    """One row a class, splits end to end."""
    names = [theme.plotly_text(name) for name in info.class_names]
    traces = [
        go.Bar(
            x=counts.tolist(),
            y=list(range(len(names))),
            orientation="h",
            name=theme.plotly_text(split),
            marker={"color": _color(row), "line": {"width": 0}},
            hovertext=[
                f"{name}<br>{images(number, theme.plotly_text(split))}"
                for name, number in zip(names, counts.tolist(), strict=True)
            ],
            hoverinfo="text",
        )
        for row, (split, counts) in enumerate(zip(info.splits, info.counts, strict=True))
    ]
    return theme.plotly_figure(
        traces,
        height=theme.row_height(len(names)),
        barmode="stack",
        showlegend=len(info.splits) > 1,
        legend={"traceorder": "normal"},
        xaxis={"title": {"text": "Images"}, "rangemode": "tozero", **ticks.whole_axis(_longest(info))},
        yaxis=theme.class_rows(info.class_names),
    )


@theme.matplotlib_style
def draw_matplotlib(info: ClassDistribution) -> Figure:
    """The same rows, still."""
    figure, axes = theme.axes(TITLE, height=theme.rows_inches(len(info.class_names)))
    start = np.zeros(len(info.class_names))
    for row, (split, counts) in enumerate(zip(info.splits, info.counts, strict=True)):
        axes.barh(range(len(start)), counts, left=start, height=0.68, color=_color(row), label=split)
        start = start + counts
    theme.class_rows_matplotlib(axes, info.class_names)
    axes.set_xlabel("Images")
    ticks.whole_ticks(axes.xaxis)
    if len(info.splits) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(info.splits), borderaxespad=0)
    return figure


def _longest(info: ClassDistribution) -> int:
    return int(info.counts.sum(axis=0).max())


def _color(split: int) -> str:
    return theme.SERIES[split % len(theme.SERIES)]
