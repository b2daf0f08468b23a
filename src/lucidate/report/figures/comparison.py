"""Two models compared: the change of each class as bars to both sides, and the images that flipped."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.comparison import ClassChanges, Flips
from lucidate.analysis.formatting import percent, points, points_interval, signed_points
from lucidate.analysis.samples import Tiles
from lucidate.core.records import jsonable
from lucidate.report import labels, theme
from lucidate.report.figures import frame
from lucidate.report.figures.tile_layout import CAPTION_LIMIT, MAX_TILES, TileGrid

TITLE = "Change of each class"
SHOWN = 30  # classes drawn, those with the largest changes; the table holds all
PALE = 0.4  # opacity of a bar whose interval includes 0


def draw_plotly(info: ClassChanges) -> go.Figure:
    """A bar a class, gains to the right, in points, with 95 % intervals; customdata is the class index."""
    rows = _rows(info)
    change, low, high = _in_points(info, rows)
    positions = list(range(len(rows)))
    bars = go.Bar(
        x=jsonable(change),
        y=positions,
        orientation="h",
        marker={"color": _colors(info, rows), "opacity": _opacities(info, rows), "line": {"width": 0}},
        error_x=frame.interval_bars(change, low, high, color=theme.LIGHT.ink, thickness=1.5),
        customdata=rows.tolist(),
        hovertext=[_words(info, k) for k in rows],
        hoverinfo="text",
        showlegend=False,
    )
    amounts = [
        go.Scatter(
            x=jsonable(np.where(change >= 0, np.maximum(high, 0), np.minimum(low, 0))[side]),
            y=np.flatnonzero(side).tolist(),
            text=[f"\N{NO-BREAK SPACE}{signed_points(info.change[k])}\N{NO-BREAK SPACE}" for k in rows[side]],
            mode="text",
            textposition=f"middle {where}",
            textfont={"size": 12},
            hoverinfo="skip",
            showlegend=False,
            cliponaxis=False,
        )
        for side, where in ((change >= 0, "right"), (change < 0, "left"))
        if side.any()
    ]
    zero = {"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper", "line": {"color": theme.LIGHT.faint}}
    return frame.plotly_figure(
        [bars, *amounts],
        height=frame.row_height(len(rows)),
        shapes=[{**zero, "layer": "below"}],
        xaxis={"title": {"text": "Accuracy of B less A, in points"}, "tickformat": "~f", "range": _range(low, high)},
        yaxis=frame.class_rows(tuple(info.class_names[k] for k in rows)),
    )


@frame.static_drawing
def draw_matplotlib(info: ClassChanges, style: frame.StaticStyle) -> Figure:
    """The same bars, static."""
    rows = _rows(info)
    change, low, high = _in_points(info, rows)
    figure, axes = frame.axes(TITLE, style, height=frame.rows_inches(len(rows)))
    positions = np.arange(len(rows))
    bars = axes.barh(positions, change, height=0.6, color=_colors(info, rows))
    for bar, opacity in zip(bars, _opacities(info, rows), strict=True):
        bar.set_alpha(opacity)
    axes.hlines(positions, low, high, color=theme.LIGHT.ink, linewidth=1.1)
    axes.axvline(0, color=theme.LIGHT.faint, linewidth=1, zorder=1)
    frame.class_rows_matplotlib(axes, tuple(info.class_names[k] for k in rows))
    axes.set_xlim(*_range(low, high))
    axes.set_xlabel(theme.matplotlib_text(_axis(info)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))
    for position, k in enumerate(rows):
        gains = change[position] >= 0
        axes.annotate(
            signed_points(info.change[k]),
            (max(high[position], 0) if gains else min(low[position], 0), position),
            xytext=(4 if gains else -4, 0),
            textcoords="offset points",
            ha="left" if gains else "right",
            va="center",
            fontsize=8,
        )
    return figure


def note(info: ClassChanges) -> str:
    """How the bars are read."""
    words = (
        "Lines are 95 % intervals; a bar is pale where its interval includes 0, "
        "and of twenty classes that did not change one would still stand out."
    )
    left = int((info.total > 0).sum()) - SHOWN
    return f"{words} Drawn are the {SHOWN} classes that changed most; the table has all." if left > 0 else words


def flips_grid(info: Flips) -> TileGrid | None:
    """The images with both answers under each; None where nothing flipped."""
    if not len(info):
        return None
    total = min(len(info), MAX_TILES)
    first, second = info.first, info.second
    wrong = first if info.fixed else second
    short = labels.telling(first.class_names, CAPTION_LIMIT)
    return TileGrid(
        ids=first.ids[:total],
        index=first.index[:total],
        cells=np.arange(total),
        first=tuple(short[label] for label in first.labels[:total]),
        second=tuple(f"A {short[label]}" for label in first.predicted[:total]),
        amounts=tuple(percent(value) for value in first.confidence[:total]),
        third=tuple(f"B {short[label]}" for label in second.predicted[:total]),
        third_amounts=tuple(percent(value) for value in second.confidence[:total]),
        wrong=np.full(total, info.fixed, dtype=np.bool_),
        words=tuple(_tile_words(info, tile) for tile in range(total)),
        pairs=tuple(zip(wrong.labels[:total].tolist(), wrong.predicted[:total].tolist(), strict=True)),
        left_out=len(info) - total,
    )


def _answer(tiles: Tiles, tile: int) -> str:
    return tiles.class_names[tiles.predicted[tile]]


def _tile_words(info: Flips, tile: int) -> tuple[str, ...]:
    """The class, the wrong answer, the right one, the change of the true class, the id."""
    true = info.first.class_names[info.first.labels[tile]]
    said = []
    for letter, name, tiles in (("A", info.names[0], info.first), ("B", info.names[1], info.second)):
        right = tiles.predicted[tile] == tiles.labels[tile]
        verb = "recognized" if right else f"taken for {_answer(tiles, tile)}"
        said.append(f"{letter} {labels.shorten(name)}: {verb}, {percent(tiles.confidence[tile])} sure")
    own = (percent(tiles.true_probability[tile]) for tiles in (info.first, info.second))
    return (true, *(said if info.fixed else said[::-1]), f"{' → '.join(own)} for {true}", str(info.first.ids[tile]))


def _rows(info: ClassChanges) -> NDArray[np.intp]:
    """Class indices of the largest changes, from the largest gain to the largest loss; only those with images."""
    shown = info.order[: min(SHOWN, int((info.total > 0).sum()))]
    return shown[np.argsort(-info.change[shown], kind="stable")]


def _in_points(info: ClassChanges, rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], ...]:
    """Change, lower and upper end, (R,) percentage points."""
    return tuple(100 * values[rows] for values in (info.change, info.low, info.high))


def _colors(info: ClassChanges, rows: NDArray[np.intp]) -> list[str]:
    return [theme.LIGHT.wrong if info.change[k] < 0 else theme.LIGHT.right for k in rows]


def _opacities(info: ClassChanges, rows: NDArray[np.intp]) -> list[float]:
    return [1.0 if info.clear[k] else PALE for k in rows]


def _axis(info: ClassChanges) -> str:
    a, b = (labels.shorten(name) for name in info.names)
    return f"Accuracy of {b} less that of {a}, percentage points"


def _range(low: NDArray[np.float64], high: NDArray[np.float64]) -> list[float]:
    """Axis that holds 0, all intervals and the numbers at their ends."""
    left, right = min(0.0, float(low.min())), max(0.0, float(high.max()))
    margin = 0.16 * (right - left)  # on a phone's screen
    return [left - margin, right + margin]


def _words(info: ClassChanges, k: int) -> str:
    name = theme.plotly_text(info.class_names[k])
    return (
        f"<b>{name}</b><br>{percent(info.accuracy_a[k])} → {percent(info.accuracy_b[k])}<br>"
        f"{points(info.change[k])} ({points_interval(info.low[k], info.high[k])})<br>"
        f"{info.fixed[k]:,} fixed, {info.broken[k]:,} broken of {info.total[k]:,}"
    )
