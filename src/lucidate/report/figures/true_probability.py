"""Mean and median probability that a class gets on its own images."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.formatting import percent
from lucidate.analysis.per_class import TrueClassProbability
from lucidate.core.records import jsonable
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import TRUST, FigureEntry

TITLE = "Average confidence in the true class"
MEAN, MEDIAN = theme.LIGHT.right, theme.LIGHT.sand


def draw_plotly(info: TrueClassProbability) -> go.Figure:
    """Two points a class and the line between them, the lowest mean on top; customdata is the class index."""
    order = _order(info)
    rows = list(range(len(order)))
    names = tuple(info.class_names[k] for k in order)
    full = [theme.plotly_text(name) for name in names]
    # One trace for all connecting lines: start, end and a gap for each class.
    ends = np.stack([info.mean[order], info.median[order], np.full(len(order), np.nan)], axis=1).ravel()
    between = go.Scatter(
        x=jsonable(ends),
        y=np.repeat(rows, 3).tolist(),
        mode="lines",
        line={"color": theme.LIGHT.slate, "width": 2},
        hoverinfo="skip",
        showlegend=False,
    )

    def points(name: str, values: list[float], color: str, symbol: str) -> go.Scatter:
        return go.Scatter(
            x=values,
            y=rows,
            name=name,
            mode="markers",
            marker={"size": 11, "color": color, "symbol": symbol},
            customdata=order.tolist(),
            hovertext=[
                f"<b>{label}</b><br>{name} probability of the true class {percent(value)}"
                for label, value in zip(full, values, strict=True)
            ],
            hoverinfo="text",
        )

    mean = points("mean", jsonable(info.mean[order]), MEAN, "circle")
    median = points("median", jsonable(info.median[order]), MEDIAN, "diamond")
    return frame.plotly_figure(
        [between, median, mean],
        height=frame.row_height(len(order)),
        legend={"traceorder": "reversed"},
        xaxis={"title": {"text": "Probability of the true class"}, **frame.share_axis(), "range": _range(info)},
        yaxis={**frame.class_rows(names), "showgrid": True},
    )


@frame.static_drawing
def draw_matplotlib(info: TrueClassProbability, style: frame.StaticStyle) -> Figure:
    """The same points, static."""
    order = _order(info)
    rows = np.arange(len(order))
    figure, axes = frame.axes(TITLE, style, height=frame.rows_inches(len(order)))
    axes.hlines(rows, info.mean[order], info.median[order], color=theme.LIGHT.slate, linewidth=1.6)
    axes.scatter(info.mean[order], rows, s=36, color=MEAN, zorder=4, label="mean")
    axes.scatter(info.median[order], rows, s=34, color=MEDIAN, marker="D", zorder=3, label="median")
    frame.class_rows_matplotlib(axes, tuple(info.class_names[k] for k in order))
    axes.set_xlabel("Probability of the true class")
    axes.set_xlim(*_range(info))
    frame.share_ticks(axes.xaxis)
    axes.grid(True, axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    return figure


def note(info: TrueClassProbability) -> str:
    """What the drawing leaves out."""
    return frame.drawn_note(int(np.isfinite(info.mean).sum()), "of the lowest mean")


def _order(info: TrueClassProbability) -> NDArray[np.intp]:
    """Classes that have images by ascending mean, of very many the first ones."""
    return frame.limited(np.argsort(info.mean, kind="stable")[: int(np.isfinite(info.mean).sum())])


def _range(info: TrueClassProbability) -> list[float]:
    """Axis from a round 10 % below the lowest point to a little over 100 %."""
    lowest = float(np.nanmin([info.mean, info.median]))
    return [max(0.0, np.floor(lowest * 10) / 10) - 0.01, 1.01]


FIGURES = (
    FigureEntry(
        "{dataset}_avg_confidence_per_true_class",
        TITLE,
        TRUST,
        "true_class_probability",
        draw_plotly=draw_plotly,
        draw_matplotlib=draw_matplotlib,
        note=note,
    ),
)
