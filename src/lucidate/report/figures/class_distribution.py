"""Images of each class, split by split."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.class_distribution import ClassDistribution
from lucidate.analysis.formatting import images
from lucidate.report import theme, ticks

TITLE = "Class distribution"


def draw_plotly(info: ClassDistribution) -> go.Figure:
    """One row a class, splits end to end; customdata is the class index."""
    rows = _rows(info)
    shown = tuple(info.class_names[k] for k in rows)
    names = [theme.plotly_text(name) for name in shown]
    traces = [
        go.Bar(
            x=counts.tolist(),
            y=list(range(len(names))),
            orientation="h",
            name=theme.plotly_text(split),
            marker={"color": _color(row), "line": {"width": 0}},
            customdata=rows.tolist(),
            hovertext=[
                f"{name}<br>{images(number, theme.plotly_text(split))}"
                for name, number in zip(names, counts.tolist(), strict=True)
            ],
            hoverinfo="text",
        )
        for row, (split, counts) in enumerate(zip(info.splits, info.counts[:, rows], strict=True))
    ]
    return theme.plotly_figure(
        traces,
        height=theme.row_height(len(names)),
        barmode="stack",
        showlegend=len(info.splits) > 1,
        legend={"traceorder": "normal"},
        xaxis={"title": {"text": "Images"}, "rangemode": "tozero", **ticks.whole_axis(_longest(info))},
        yaxis=theme.class_rows(shown),
    )


@theme.matplotlib_style
def draw_matplotlib(info: ClassDistribution) -> Figure:
    """The same rows, static."""
    rows = _rows(info)
    figure, axes = theme.axes(TITLE, height=theme.rows_inches(len(rows)))
    start = np.zeros(len(rows))
    for row, (split, counts) in enumerate(zip(info.splits, info.counts[:, rows], strict=True)):
        axes.barh(range(len(start)), counts, left=start, height=0.68, color=_color(row), label=split)
        start = start + counts
    theme.class_rows_matplotlib(axes, tuple(info.class_names[k] for k in rows))
    axes.set_xlabel("Images")
    ticks.whole_ticks(axes.xaxis)
    if len(info.splits) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(info.splits), borderaxespad=0)
    return figure


def note(info: ClassDistribution) -> str:
    """What the drawing leaves out."""
    return theme.drawn_note(len(info.class_names), "with the fewest images")


def _rows(info: ClassDistribution) -> NDArray[np.intp]:
    """The classes in their order; of very many, those with the fewest images, fewest first."""
    if len(info.class_names) <= theme.MOST_CLASSES:
        return np.arange(len(info.class_names))
    return theme.limited(np.argsort(info.counts.sum(axis=0), kind="stable"))


def _longest(info: ClassDistribution) -> int:
    return int(info.counts[:, _rows(info)].sum(axis=0).max())


def _color(split: int) -> str:
    return theme.SERIES[split % len(theme.SERIES)]
