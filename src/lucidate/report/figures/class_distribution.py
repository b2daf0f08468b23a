"""Images of each class, split by split."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.dataset import ClassDistribution
from lucidate.analysis.formatting import images
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import DATA, FigureEntry

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
    return frame.plotly_figure(
        traces,
        height=frame.row_height(len(names)),
        barmode="stack",
        showlegend=len(info.splits) > 1,
        legend={"traceorder": "normal"},
        xaxis={"title": {"text": "Images"}, "rangemode": "tozero", **frame.whole_axis(_longest(info))},
        yaxis=frame.class_rows(shown),
    )


@frame.static_drawing
def draw_matplotlib(info: ClassDistribution, style: frame.StaticStyle) -> Figure:
    """The same rows, static."""
    rows = _rows(info)
    figure, axes = frame.axes(TITLE, style, height=frame.rows_inches(len(rows)))
    start = np.zeros(len(rows))
    for row, (split, counts) in enumerate(zip(info.splits, info.counts[:, rows], strict=True)):
        axes.barh(range(len(start)), counts, left=start, height=0.68, color=_color(row), label=split)
        start = start + counts
    frame.class_rows_matplotlib(axes, tuple(info.class_names[k] for k in rows))
    axes.set_xlabel("Images")
    frame.whole_ticks(axes.xaxis)
    if len(info.splits) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(info.splits), borderaxespad=0)
    return figure


def note(info: ClassDistribution) -> str:
    """What the drawing leaves out."""
    return frame.drawn_note(len(info.class_names), "with the fewest images")


def _rows(info: ClassDistribution) -> NDArray[np.intp]:
    """The classes in their order; of very many, those with the fewest images, fewest first."""
    if len(info.class_names) <= frame.MOST_CLASSES:
        return np.arange(len(info.class_names))
    return frame.limited(np.argsort(info.counts.sum(axis=0), kind="stable"))


def _longest(info: ClassDistribution) -> int:
    return int(info.counts[:, _rows(info)].sum(axis=0).max())


def _color(split: int) -> str:
    return theme.SERIES[split % len(theme.SERIES)]


FIGURES = (
    FigureEntry(
        "class_distribution",
        TITLE,
        DATA,
        "class_distribution",
        draw_plotly=draw_plotly,
        draw_matplotlib=draw_matplotlib,
        note=note,
    ),
)
