"""Images of each class, split by split."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from lucidate.analyze.class_distribution import ClassDistribution
from lucidate.report import theme

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
            text=names,
            textposition="none",
            hovertemplate=f"%{{text}}<br>%{{x:,}} {theme.plotly_text(split)} images<extra></extra>",
        )
        for row, (split, counts) in enumerate(zip(info.splits, info.counts, strict=True))
    ]
    return theme.plotly_figure(
        traces,
        height=theme.row_height(len(names)),
        barmode="stack",
        showlegend=len(info.splits) > 1,
        legend={"traceorder": "normal"},
        xaxis={"title": {"text": "Images"}, "tickformat": ",", "rangemode": "tozero"},
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
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if len(info.splits) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(info.splits), borderaxespad=0)
    return figure


def _color(split: int) -> str:
    return theme.SERIES[split % len(theme.SERIES)]
