"""Confidence of right against wrong predictions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.confidence import ConfidenceHistogram
from lucidate.analysis.formatting import count, percent
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import TRUST, FigureEntry

AXIS = "Confidence (dotted: means of the groups)"


def draw_plotly(info: ConfidenceHistogram) -> go.Figure:
    """Bars a bin, first as shares of each group: by count the few wrong ones would be a line on the ground."""
    bins = [f"at {100 * low:.0f}–{100 * high:.0f} % confidence" for low, high in pairwise(info.edges.tolist())]
    bars, lines = [], []
    for name, counts, color, mean in _groups(info):
        share, total = _share(counts), int(counts.sum())
        hover = [
            f"{count(number)} of {count(total, f'{name} prediction')} ({percent(part)})<br>{where}"
            for number, part, where in zip(counts.tolist(), share.tolist(), bins, strict=True)
        ]
        look = {"name": f"{name} ({count(total)})", "marker": {"color": color, "line": {"width": 0}}}
        bars.append(go.Bar(x=_centers(info).tolist(), y=share.tolist(), hovertext=hover, hoverinfo="text", **look))
        if np.isfinite(mean):
            line = {"type": "line", "x0": mean, "x1": mean, "y0": 0, "y1": 1, "yref": "paper"}
            lines.append({**line, "line": {"color": color, "dash": "dot", "width": 1.5}})
    both = [info.right, info.wrong]
    shares = {"y": [_share(counts).tolist() for counts in both]}, _axis("Share of the group", frame.share_axis())
    whole = _axis("Predictions", frame.whole_axis(int(np.stack(both).max())))
    across = {"title": {"text": AXIS}, "tickformat": ".0%", "dtick": 0.2, "range": [-0.005, 1.005], "showgrid": False}
    return frame.plotly_figure(
        bars,
        height=480,
        barmode="group",
        bargap=0.18,
        bargroupgap=0.06,
        shapes=lines,
        updatemenus=frame.menu(
            ("Share of group", *shares), ("Count", {"y": [counts.tolist() for counts in both]}, whole)
        ),
        xaxis=across,
        yaxis={"title": {"text": "Share of the group"}, **frame.share_axis(), "rangemode": "tozero"},
    )


def draw_matplotlib(info: ConfidenceHistogram, title: str, style: frame.StaticStyle) -> Figure:
    """The same bars as shares, static."""
    figure, axes = frame.axes(title, style)
    width = float(np.diff(info.edges).min()) * 0.41
    for side, (name, counts, color, mean) in enumerate(_groups(info)):
        label = f"{name} ({count(int(counts.sum()))})"
        axes.bar(_centers(info) + (side - 0.5) * width, _share(counts), width, color=color, label=label)
        if np.isfinite(mean):
            axes.axvline(mean, color=color, linestyle=":", linewidth=1.4)
    axes.set(xlabel=AXIS, ylabel="Share of the group", xlim=(0, 1))
    axes.grid(False, axis="x")
    frame.share_ticks(axes.xaxis)
    frame.share_ticks(axes.yaxis)
    frame.legend(axes)
    return figure


def _groups(info: ConfidenceHistogram) -> tuple[tuple[str, NDArray[np.int64], str, float], ...]:
    """Name, counts, color and mean of right and of wrong predictions."""
    return (
        ("right", info.right, theme.LIGHT.right, info.mean_right),
        ("wrong", info.wrong, theme.LIGHT.wrong, info.mean_wrong),
    )


def _axis(title: str, look: dict[str, Any]) -> dict[str, Any]:
    """Changes that give the vertical axis another look, and take back what the one before it had set."""
    mode = "linear" if "dtick" in look else "auto"
    changes = {"title.text": title, "tickmode": mode, "tickformatstops": [], "autorange": True, **look}
    return {f"yaxis.{key}": value for key, value in changes.items()}


def _centers(info: ConfidenceHistogram) -> NDArray[np.float64]:
    return (info.edges[:-1] + info.edges[1:]) / 2


def _share(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts as shares of their sum; zeros where there is none."""
    return counts / max(int(counts.sum()), 1)


TITLE = "Confidence of right and wrong predictions"
DRAWINGS = (draw_plotly, draw_matplotlib)
FIGURES = (FigureEntry("{dataset}_confidence_hist", TITLE, TRUST, "confidence", drawings=DRAWINGS),)
