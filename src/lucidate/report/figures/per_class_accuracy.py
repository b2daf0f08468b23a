"""Accuracy of each class with its interval, the hardest class on top."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.formatting import interval, percent
from lucidate.analysis.per_class import PerClassAccuracy
from lucidate.core.records import jsonable
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import ERRORS, FigureEntry

TITLE = "Accuracy of each class"


def draw_plotly(info: PerClassAccuracy) -> go.Figure:
    """Points with Wilson's 95 % intervals, a line at the overall accuracy; customdata is the class index."""
    order = _order(info)
    names = tuple(info.class_names[k] for k in order)
    accuracy = info.accuracy[order]
    points = go.Scatter(
        x=jsonable(accuracy),
        y=list(range(len(order))),
        mode="markers",
        marker={"size": 11, "color": [_color(info, k) for k in order]},
        error_x=frame.interval_bars(accuracy, info.low[order], info.high[order]),
        customdata=order.tolist(),
        hovertext=[_words(info, k) for k in order],
        hoverinfo="text",
        showlegend=False,
    )
    line = {"x0": info.overall, "x1": info.overall, "y0": 0, "y1": 1, "yref": "paper", "type": "line", "layer": "below"}
    note = {"x": info.overall, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    note["xanchor"] = "right" if info.overall > 0.9 else "center"  # at the right end it would leave the picture
    return frame.plotly_figure(
        [points],
        height=frame.row_height(len(order)),
        margin={"t": 40},
        shapes=[{**line, "line": {"color": theme.LIGHT.faint, "dash": "dot", "width": 1.5}}],
        annotations=[{**note, "text": f"overall {percent(info.overall)}", "font": {"color": theme.LIGHT.muted}}],
        xaxis={"title": {"text": "Accuracy, with its 95 % interval"}, **frame.share_axis(), "range": _range(info)},
        yaxis={**frame.class_rows(names), "showgrid": True},
    )


@frame.static_drawing
def draw_matplotlib(info: PerClassAccuracy, style: frame.StaticStyle) -> Figure:
    """The same points, static."""
    order = _order(info)
    figure, axes = frame.axes(TITLE, style, height=frame.rows_inches(len(order)))
    rows = np.arange(len(order))
    axes.hlines(rows, info.low[order], info.high[order], color=theme.LIGHT.slate, linewidth=1.6)
    axes.scatter(info.accuracy[order], rows, s=34, color=[_color(info, k) for k in order], zorder=3)
    axes.axvline(info.overall, color=theme.LIGHT.faint, linestyle=":", linewidth=1.4, zorder=1)
    frame.class_rows_matplotlib(axes, tuple(info.class_names[k] for k in order))
    axes.text(
        info.overall,
        1.01,
        f"overall {percent(info.overall)}",
        ha="right" if info.overall > 0.9 else "center",
        va="bottom",
        color=theme.LIGHT.muted,
        transform=axes.get_xaxis_transform(),
    )
    axes.set_xlabel("Accuracy, with its 95 % interval")
    axes.set_xlim(*_range(info))
    frame.share_ticks(axes.xaxis)
    axes.grid(True, axis="y")
    return figure


def note(info: PerClassAccuracy) -> str:
    """What the drawing leaves out."""
    return frame.drawn_note(int((info.total > 0).sum()), "of the lowest accuracy")


def _order(info: PerClassAccuracy) -> NDArray[np.intp]:
    """Classes that have images by ascending accuracy, of very many the first ones."""
    return frame.limited(np.argsort(info.accuracy, kind="stable")[: int((info.total > 0).sum())])


def _color(info: PerClassAccuracy, k: int) -> str:
    """Marked as wrong only where the whole interval lies below the overall accuracy."""
    return theme.LIGHT.wrong if info.high[k] < info.overall else theme.LIGHT.right


def _range(info: PerClassAccuracy) -> list[float]:
    """Axis from a round 10 % below the lowest interval of a class that has images, to a little over 100 %."""
    lowest = float(np.nanmin(info.low))
    top = 1.01
    return [max(0.0, np.floor(lowest * 10) / 10) - 0.01, top]


def _words(info: PerClassAccuracy, k: int) -> str:
    name = theme.plotly_text(info.class_names[k])
    return (
        f"<b>{name}</b><br>{percent(info.accuracy[k])} ({interval(info.low[k], info.high[k])})<br>"
        f"{info.correct[k]:,} of {info.total[k]:,} right"
    )


FIGURES = (
    FigureEntry(
        "{dataset}_per_class_accuracy",
        TITLE,
        ERRORS,
        "per_class_accuracy",
        draw_plotly=draw_plotly,
        draw_matplotlib=draw_matplotlib,
        note=note,
    ),
)
