"""Charts of rows: values of classes, pairs or models, one below another; both libraries draw them from one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.core.records import jsonable
from lucidate.report import theme
from lucidate.report.figures import frame

MARKERS = {"circle": "o", "diamond": "D", "circle-open": "o"}  # Plotly's names and Matplotlib's


@dataclass(frozen=True, eq=False)
class Series:
    """Bars or points, one a row or fewer.

    values: (R,). colors: one, or one a value. hover: (R,) what hovering tells, in a little HTML. data: (R,) what a
    click gives, such as the class index. rows: (R,) where they stand; default: all rows. name: in the legend.
    low, high: (R,) ends of an interval. opacity: (R,) of bars.
    """

    values: NDArray[Any]
    colors: str | list[str]
    hover: list[str]
    data: list[Any]
    rows: list[int] | None = None
    name: str = ""
    low: NDArray[Any] | None = None
    high: NDArray[Any] | None = None
    opacity: list[float] | None = None
    symbol: Literal["circle", "diamond", "circle-open"] = "circle"


@dataclass(frozen=True, eq=False)
class RowChart:
    """Rows in their order, the first on top.

    labels: of the rows; newlines part them, but those of bars in a picture. bars: of several series, end to end; else
    points. axis: what is measured; static_axis, where no page stands around it. scale: how ticks are written. limits:
    of the axis; static_limits, where Matplotlib needs others. texts: one a row, at the end of its last series. line: a
    value across all rows, and what it is. height: CSS pixels; inches: of the picture. note: how to read it, and what it
    leaves out.
    """

    labels: list[str]
    series: tuple[Series, ...]
    axis: str
    scale: Literal["share", "count", "points"] = "share"
    bars: bool = False
    limits: tuple[float, float] | None = None
    static_axis: str = ""
    static_limits: tuple[float, float] | None = None
    texts: tuple[str, ...] = ()
    line: tuple[float, str] | None = None
    height: int | None = None
    inches: float | None = None
    note: str = ""

    @property
    def named(self) -> int:
        """How many of the series are in a legend."""
        return sum(bool(series.name) for series in self.series)

    @property
    def text_ends(self) -> list[tuple[str, float, bool]]:
        """Of bars, the texts, where they stand, outside of a bar and of its interval, and whether that is its right."""
        last = self.series[-1]
        low, high = (last.values if end is None else end for end in (last.low, last.high))
        right = last.values >= 0
        ends = np.where(right, np.maximum(high, 0), np.minimum(low, 0))
        return list(zip(self.texts, ends.tolist(), right.tolist(), strict=True)) if self.bars and self.texts else []


def row_height(rows: int) -> int:
    """CSS pixels for a chart of one row a class."""
    return 110 + max(rows, 3) * (30 if rows <= 30 else 22)


def draw_plotly(chart: RowChart) -> go.Figure:
    """customdata of a bar or point is its series' `data`."""
    labels = ["<br>".join(map(theme.plotly_text, label.split("\n"))) for label in chart.labels]
    traces, layout = [_trace(series, bars=chart.bars) for series in chart.series], _line(chart)
    for row, (text, end, right) in enumerate(chart.text_ends):
        place = {"x": end, "y": row, "xanchor": "left" if right else "right", "xshift": 4 if right else -4}
        layout["annotations"].append({"text": text, "font": {"size": 12}, "showarrow": False, **place})
    if chart.bars and chart.texts and chart.series[-1].low is None:
        layout["margin"] = {"r": 16 + 7 * max(map(len, chart.texts))}
    scale = {"share": frame.share_axis(), "points": {"tickformat": "~f"}}.get(chart.scale)
    if scale is None:
        scale = frame.whole_axis(float(np.sum([series.values for series in chart.series], axis=0).max()))
    return frame.plotly_figure(
        traces,
        height=chart.height or row_height(len(labels)),
        barmode="stack",
        showlegend=chart.named > 1,
        legend={"traceorder": "normal" if chart.bars else "reversed"},
        xaxis={"title": {"text": chart.axis}, "rangemode": "tozero", "range": chart.limits, **scale},
        yaxis={**frame.class_axis(labels), "range": [len(labels) - 0.5, -0.5], "showgrid": not chart.bars},
        **layout,
    )


def draw_matplotlib(chart: RowChart, title: str, style: frame.StaticStyle) -> Figure:
    """The same rows, static."""
    count = len(chart.labels)
    inches = chart.inches or 1.4 + max(count, 6) * (0.27 if count <= 30 else 0.15)
    figure, axes = frame.axes(title, style, height=inches)
    start = np.zeros(count)
    for depth, series in enumerate(chart.series):
        rows = range(count) if series.rows is None else series.rows
        if chart.bars:
            colors = to_rgba_array(series.colors, series.opacity)
            axes.barh(rows, series.values, left=start, height=0.68, color=colors, label=series.name)
            start = start + series.values
        else:
            fill = theme.LIGHT.surface if series.symbol == "circle-open" else series.colors
            look: dict[str, Any] = {"marker": MARKERS[series.symbol], "facecolor": fill, "edgecolor": series.colors}
            axes.scatter(series.values, rows, s=36, zorder=3 + depth, label=series.name, **look)
        if series.low is not None and series.high is not None:
            ink, width = (theme.LIGHT.ink, 1.1) if chart.bars else (theme.LIGHT.slate, 1.6)
            axes.hlines(rows, series.low, series.high, color=ink, linewidth=width)
    if chart.line:
        place, words = chart.line
        axes.axvline(place, color=theme.LIGHT.faint, linestyle=":" if words else "-", linewidth=1.4, zorder=1)
        position: dict[str, Any] = {"ha": _side(place), "va": "bottom", "transform": axes.get_xaxis_transform()}
        axes.text(place, 1.01, words, color=theme.LIGHT.muted, **position)
    near: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8}
    for row, (text, end, right) in enumerate(chart.text_ends):
        axes.annotate(text, (end, row), (4 if right else -4, 0), ha="left" if right else "right", va="center", **near)
    if not chart.bars:
        for row, (text, value) in enumerate(zip(chart.texts, chart.series[-1].values, strict=False)):
            axes.annotate(text, (value, row), (0, 7), ha="center", **near)
    newline = " " if chart.bars else "\n"
    labels = [newline.join(map(theme.matplotlib_text, label.split("\n"))) for label in chart.labels]
    axes.set_yticks(range(count), labels, fontsize=9 if count <= 30 else 6.5)
    axes.set_ylim(count - 0.5, -0.75 if chart.texts and not chart.bars else -0.5)
    axes.grid(not chart.bars, axis="y")
    axes.set_xlabel(theme.matplotlib_text(chart.static_axis or chart.axis, None))
    if limits := chart.static_limits or chart.limits:
        axes.set_xlim(*limits)
    {"share": frame.share_ticks, "count": frame.whole_ticks, "points": frame.point_ticks}[chart.scale](axes.xaxis)
    if chart.named > 1:
        frame.legend(axes, reverse=not chart.bars)
    return figure


def _trace(series: Series, *, bars: bool) -> go.Bar | go.Scatter:
    rows = list(range(len(series.values))) if series.rows is None else series.rows
    shared: dict[str, Any] = {
        "x": jsonable(series.values),
        "y": rows,
        "customdata": series.data,
        "hovertext": series.hover,
    }
    shared |= {"hoverinfo": "text", "name": theme.plotly_text(series.name), "showlegend": bool(series.name)}
    if series.low is not None and series.high is not None:
        ends = {"array": jsonable(series.high - series.values), "arrayminus": jsonable(series.values - series.low)}
        look = {"color": theme.LIGHT.ink, "thickness": 1.5} if bars else {"color": theme.LIGHT.slate, "thickness": 2}
        shared["error_x"] = {"type": "data", "symmetric": False, "width": 0, **ends, **look}
    if bars:
        look = {"color": series.colors, "opacity": series.opacity, "line": {"width": 0}}
        return go.Bar(orientation="h", marker=look, **shared)
    marker: dict[str, Any] = {"size": 11, "color": series.colors, "symbol": series.symbol}
    if series.symbol == "circle-open":
        marker["line"] = {"width": 2}
    return go.Scatter(mode="markers", marker=marker, **shared)


def _line(chart: RowChart) -> dict[str, Any]:
    """Plotly's layout with the line across all rows, and its words above it."""
    layout: dict[str, Any] = {"shapes": [], "annotations": []}
    if chart.line:
        place, words = chart.line
        look = {"color": theme.LIGHT.faint, **({"dash": "dot", "width": 1.5} if words else {})}
        ends = {"x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper"}
        layout["shapes"] = [{"type": "line", **ends, "layer": "below", "line": look}]
        if words:
            above = {"x": place, "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": _side(place)}
            note = {"text": words, "showarrow": False, "font": {"color": theme.LIGHT.muted}, **above}
            layout |= {"annotations": [note], "margin": {"t": 40}}
    return layout


def _side(place: float) -> str:
    """How words stand to their line: at the right end they would leave the picture."""
    return "right" if place > 0.9 else "center"
