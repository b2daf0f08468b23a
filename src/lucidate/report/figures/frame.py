"""What all figures share: Plotly's template, Matplotlib's settings, axes, legends, and ticks that read true."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, log10
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import Formatter, MaxNLocator
from numpy.typing import NDArray

from lucidate.report import theme

PNG_WIDTH = 8.0  # inches; at PNG_DPI twice the 800 px that a picture takes in a text
PNG_DPI = 200
MOST_CLASSES, WORST = 100, 50  # drawn in one figure; of more than that, so many
SANS = ("Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans", "Noto Sans CJK SC")
_STEPS = [1, 2, 5, 10]  # of ticks that read well


@dataclass(frozen=True)
class StaticStyle:
    """What a static figure is drawn for. width, height: inches; height None: what the figure needs.

    padding: inches at its sides, and at its top and bottom. printed: in a document, whose caption holds the title and
    the notes, and where cells of a matrix are vectors, since viewers blur small images or show them as they like.
    """

    width: float = PNG_WIDTH
    height: float | None = None
    fonts: tuple[str, ...] = SANS
    padding: tuple[float, float] = (0.16, 0.14)
    printed: bool = False


PNG = StaticStyle()


@cache
def plotly_template() -> go.layout.Template:
    """Transparent ground, hairline grid, quiet type."""
    axis = {
        "gridcolor": theme.LIGHT.grid,
        "linecolor": theme.LIGHT.line,
        "zeroline": False,
        "ticks": "",
        "ticklabelstandoff": 6,
        "automargin": True,
        "title": {"font": {"size": 13, "color": theme.LIGHT.muted}, "standoff": 14},
        "tickfont": {"size": 12, "color": theme.LIGHT.muted},
    }
    layout = {
        "font": {"family": theme.WEB_FONTS, "size": 13, "color": theme.LIGHT.ink},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": [theme.LIGHT.right, theme.LIGHT.wrong, theme.LIGHT.sand, theme.LIGHT.slate],
        "xaxis": axis,
        "yaxis": axis,
        "margin": {"l": 16, "r": 16, "t": 24, "b": 16},
        "hoverlabel": {
            "bgcolor": theme.LIGHT.surface,
            "bordercolor": theme.LIGHT.faint,
            "align": "left",
            "font": {"family": theme.WEB_FONTS, "size": 13, "color": theme.LIGHT.ink},
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "title": {"text": ""}},
        "bargap": 0.4,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.LIGHT.faint, "activecolor": theme.LIGHT.right},
    }
    return go.layout.Template(layout=layout)


def plotly_figure(traces: list[Any], *, height: int, **layout: Any) -> go.Figure:
    """A figure in the house template. height: CSS pixels; the width follows the page."""
    figure = go.Figure(data=traces)
    return figure.update_layout(template=plotly_template(), height=height, **layout)


def class_axis(ticks: list[str]) -> dict[str, Any]:
    """A Plotly axis over class positions 0 … K - 1. Numbers, not categories, since shortened names may be alike."""
    return {"tickmode": "array", "tickvals": list(range(len(ticks))), "ticktext": ticks, "showgrid": False}


def limited(order: NDArray[np.intp], which: str) -> tuple[NDArray[np.intp], str]:
    """Of classes, the ones to draw first in front: all up to 100, else the first 50, since more rows cannot be read.

    Also the note that says so, empty where all are drawn. which: such as "of the lowest accuracy".
    """
    if len(order) <= MOST_CLASSES:
        return order, ""
    note = f"Drawn are the {WORST} classes {which}, of {len(order):,}; the gallery's CSV file has all."
    return order[:WORST], note


def menu(*views: tuple[str, dict[str, Any], dict[str, Any]]) -> list[dict[str, Any]]:
    """Plotly's buttons for two or more views: (label, changes to traces, changes to layout), the first one active.

    In the gallery the script draws them as buttons of the page, which a keyboard can reach.
    """
    buttons = [{"label": label, "method": "update", "args": [traces, layout]} for label, traces, layout in views]
    position = {"x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    return [{"type": "buttons", "direction": "right", "active": 0, "showactive": True, "buttons": buttons, **position}]


def empty_plotly(sentence: str) -> go.Figure:
    """What stands where there is nothing to draw: the sentence that says so."""
    note = {"text": _wrapped(theme.plotly_text, sentence, "<br>"), "font": {"size": 16, "color": theme.LIGHT.muted}}
    position = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
    hidden = {"visible": False, "fixedrange": True}
    return plotly_figure([], height=240, annotations=[{**note, **position}], xaxis=hidden, yaxis=hidden)


@cache
def matplotlib_settings(style: StaticStyle = PNG) -> dict[str, Any]:
    """Matplotlib's side of the template; sizes in points."""
    installed = {font.name for font in font_manager.fontManager.ttflist}  # naming others logs a warning for each
    return {
        "font.family": [name for name in style.fonts if name in installed],
        "font.size": 9,
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 12,
        "axes.labelsize": 9,
        "axes.labelcolor": theme.LIGHT.muted,
        "axes.edgecolor": theme.LIGHT.line,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "grid.color": theme.LIGHT.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.LIGHT.line,
        "ytick.color": theme.LIGHT.line,
        "xtick.labelcolor": theme.LIGHT.muted,
        "ytick.labelcolor": theme.LIGHT.muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "text.color": theme.LIGHT.ink,
        "legend.frameon": False,
        "figure.facecolor": theme.LIGHT.surface,
        "axes.facecolor": theme.LIGHT.surface,
        "figure.dpi": PNG_DPI,
    }


def axes(title: str, style: StaticStyle = PNG, *, height: float = 4.6) -> tuple[Figure, Axes]:
    """A figure of the style with one set of axes, its title on the left. height: inches, where the style has none."""
    width_pad, height_pad = style.padding
    layout = ConstrainedLayoutEngine(w_pad=width_pad, h_pad=height_pad)
    figure = Figure(figsize=(style.width, style.height or height), layout=layout)
    FigureCanvasAgg(figure)
    drawn = figure.add_subplot()
    if title and not style.printed:
        drawn.set_title(theme.matplotlib_text(title))
    return figure, drawn


def empty_matplotlib(title: str, sentence: str) -> Figure:
    """The static twin of `empty_plotly`."""
    figure, drawn = axes(title, height=2.6)
    drawn.set_axis_off()
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 11, "color": theme.LIGHT.muted}
    drawn.text(0.5, 0.5, _wrapped(theme.matplotlib_text, sentence, "\n"), transform=drawn.transAxes, **look)
    return figure


def _wrapped(escape: Callable[[str], str], sentence: str, newline: str) -> str:
    return newline.join(escape(line) for line in textwrap.wrap(sentence, 40))


def whole_axis(span: float) -> dict[str, Any]:
    """A Plotly axis of counts or epochs over `span` of them; by itself it puts ticks at halves of a short one."""
    step = next((step for step in (1, 2, 5) if span <= 6 * step), None)
    position = {"tick0": 0, "dtick": step} if step else {}
    return {"tickformat": ",~f", **position}  # "~f" rather than "d": zoomed in, 0.5 must not read as another 1


def share_axis() -> dict[str, Any]:
    """A Plotly axis of shares as percentages, whose decimals follow the distance of its ticks, zoomed in or out."""
    ends = ((0.000999, ".2%"), (0.00999, ".1%"), (None, ".0%"))
    stops = [{"dtickrange": [None, end], "value": form} for end, form in ends]
    return {"tickformat": ".0%", "tickformatstops": stops}


def whole_ticks(axis: Axis) -> None:
    """Matplotlib's side of `whole_axis`."""
    axis.set_major_locator(MaxNLocator(7, integer=True, steps=_STEPS))
    axis.set_major_formatter("{x:,.0f}")


def share_ticks(axis: Axis) -> None:
    """Matplotlib's side of `share_axis`."""
    axis.set_major_locator(MaxNLocator(7, steps=_STEPS))
    axis.set_major_formatter(_Percentages())


def point_ticks(axis: Axis) -> None:
    """Differences in percentage points, with a true minus sign."""
    axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))


def from_round_tenth(lowest: float) -> tuple[float, float]:
    """Limits of an axis of shares: from a round 10 % below the lowest to a little over 100 %."""
    return max(0.0, floor(lowest * 10) / 10) - 0.01, 1.01


def legend(axes: Axes, *, reverse: bool = False) -> None:
    """The legend of a picture, above it on the right."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0, reverse=reverse)


class _Percentages(Formatter):
    """As many decimals as the distance of ticks asks for: 52 %, 53 %; 53.5 %, 54.0 %."""

    def __call__(self, x: float, pos: int | None = None) -> str:  # noqa: ARG002 (Matplotlib's signature)
        return f"{100 * x:.0f}%"

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        step = float(np.diff(values).min()) if len(values) > 1 else 1.0
        decimals = max(0, ceil(-log10(100 * step) - 1e-6))
        return [f"{100 * value:.{decimals}f}%" for value in values]
