"""How every figure looks: colours, type, the Plotly template and Matplotlib's settings, from one source.

Figures are drawn in the light palette. The gallery carries the map from light to dark colours, and its script swaps
them by value wherever a figure names a colour, so a drawing function never asks which theme is on.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from lucidate.core.records import jsonable
from lucidate.report.labels import short_names, shorten

P = ParamSpec("P")


@dataclass(frozen=True)
class Palette:
    """Named colours, "#rrggbb", no two alike within a palette.

    Right is teal and wrong vermilion: told apart under every common colour blindness, and by lightness in grey.
    """

    background: str
    surface: str
    raised: str
    ink: str
    muted: str
    faint: str
    line: str
    grid: str
    right: str
    wrong: str
    slate: str
    sand: str
    # Scales run from "none" (almost the page) to "much". Plotly writes white on colors of a brightness below 128 and
    # grey on others, so their upper ends stay below it.
    right_0: str
    right_1: str
    right_2: str
    wrong_0: str
    wrong_1: str
    wrong_2: str
    wrong_3: str


LIGHT = Palette(
    background="#f8f7f4",
    surface="#ffffff",
    raised="#f1f1ed",
    ink="#1c2127",
    muted="#57606b",
    faint="#8b939d",
    line="#e0e1de",
    grid="#ecedeb",
    right="#0e7a88",
    wrong="#d4501c",
    slate="#8494a6",
    sand="#d9a441",
    right_0="#e4f1f2",
    right_1="#7dbac1",
    right_2="#0d7684",
    wrong_0="#fbfaf9",
    wrong_1="#fad8c6",
    wrong_2="#ec8653",
    wrong_3="#b13a0c",
)

DARK = Palette(
    background="#101418",
    surface="#181d22",
    raised="#20262d",
    ink="#e9ebee",
    muted="#a5aeb9",
    faint="#737d89",
    line="#2c333b",
    grid="#272e35",
    right="#45b5c3",
    wrong="#ff8a57",
    slate="#93a4b8",
    sand="#e6b95e",
    right_0="#17343a",
    right_1="#1f5d67",
    right_2="#2f96a3",
    wrong_0="#1d2228",
    wrong_1="#5a2d1b",
    wrong_2="#a84a20",
    wrong_3="#dd5a24",
)

SERIES = (LIGHT.right, LIGHT.sand, LIGHT.slate)  # splits of a data set; three is what there are
WEB_FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif'
_PRINT_FONTS = ("Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans", "Noto Sans CJK SC")

PNG_WIDTH = 8.0  # inches; at PNG_DPI twice the 800 px that a picture takes in a text
PNG_DPI = 200
MOST_CLASSES, WORST = 100, 50  # drawn in one figure; of more than that, so many


def dark_of_light() -> dict[str, str]:
    """Light colour → its dark counterpart, for the gallery's script."""
    return {getattr(LIGHT, field.name): getattr(DARK, field.name) for field in fields(Palette)}


def css_variables() -> str:
    """Both palettes as CSS custom properties: `--right`, `--surface` …, and the font stack."""

    def declare(palette: Palette) -> str:
        return " ".join(f"--{f.name.replace('_', '-')}: {getattr(palette, f.name)};" for f in fields(palette))

    light, dark = f"color-scheme: light; {declare(LIGHT)}", f"color-scheme: dark; {declare(DARK)}"
    return (
        f":root {{ --fonts: {WEB_FONTS}; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme='light']) {{ {dark} }} }}\n"
        f":root[data-theme='dark'] {{ {dark} }}\n"
    )


def plotly_text(text: str, limit: int | None = None) -> str:
    """External text for a Plotly label, which reads a little HTML."""
    return shorten(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def matplotlib_text(text: str, limit: int | None = None) -> str:
    """External text for a Matplotlib label, where a dollar would open a formula."""
    return shorten(text, limit).replace("$", r"\$")


@cache
def plotly_template() -> go.layout.Template:
    """Transparent ground, hairline grid, quiet type."""
    axis = {
        "gridcolor": LIGHT.grid,
        "linecolor": LIGHT.line,
        "zeroline": False,
        "ticks": "",
        "ticklabelstandoff": 6,
        "automargin": True,
        "title": {"font": {"size": 13, "color": LIGHT.muted}, "standoff": 14},
        "tickfont": {"size": 12, "color": LIGHT.muted},
    }
    layout = {
        "font": {"family": WEB_FONTS, "size": 13, "color": LIGHT.ink},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": [LIGHT.right, LIGHT.wrong, LIGHT.sand, LIGHT.slate],
        "xaxis": axis,
        "yaxis": axis,
        "margin": {"l": 16, "r": 16, "t": 24, "b": 16},
        "hoverlabel": {
            "bgcolor": LIGHT.surface,
            "bordercolor": LIGHT.faint,
            "align": "left",
            "font": {"family": WEB_FONTS, "size": 13, "color": LIGHT.ink},
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "title": {"text": ""}},
        "bargap": 0.4,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": LIGHT.faint, "activecolor": LIGHT.right},
    }
    return go.layout.Template(layout=layout)


def plotly_figure(traces: list[Any], *, height: int, **layout: Any) -> go.Figure:
    """A figure in the house template. height: CSS pixels; the width follows the page."""
    figure = go.Figure(data=traces)
    return figure.update_layout(template=plotly_template(), height=height, **layout)


def class_axis(names: tuple[str, ...]) -> dict[str, Any]:
    """A Plotly axis over class positions 0 … K - 1. Numbers, not categories, since shortened names may be alike."""
    ticks = [plotly_text(name) for name in short_names(names)]
    return {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": ticks, "showgrid": False}


def class_rows(names: tuple[str, ...]) -> dict[str, Any]:
    """The same axis as rows, the first class on top."""
    return {**class_axis(names), "range": [len(names) - 0.5, -0.5]}


def limited(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of classes (K,), the ones to draw first in front: all up to 100, else the first 50; more rows cannot be read."""
    return order if len(order) <= MOST_CLASSES else order[:WORST]


def drawn_note(classes: int, which: str) -> str:
    """What a drawing leaves out; nothing where it is whole. which: such as "of the lowest accuracy"."""
    if classes <= MOST_CLASSES:
        return ""
    return f"Drawn are the {WORST} classes {which}, of {classes:,}; the gallery's CSV file has all."


def row_height(rows: int) -> int:
    """CSS pixels for a chart of one row a class."""
    return 110 + max(rows, 3) * (30 if rows <= 30 else 22)


def menu(*views: tuple[str, dict[str, Any], dict[str, Any]]) -> list[dict[str, Any]]:
    """Plotly's buttons for two or more views: (label, changes to traces, changes to layout), the first one active.

    In the gallery the script draws them as buttons of the page, which a keyboard can reach.
    """
    buttons = [{"label": label, "method": "update", "args": [traces, layout]} for label, traces, layout in views]
    place = {"x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    return [{"type": "buttons", "direction": "right", "active": 0, "showactive": True, "buttons": buttons, **place}]


def interval_bars(
    values: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    *,
    color: str = LIGHT.slate,
    thickness: float = 2,
) -> dict[str, Any]:
    """Plotly's `error_x` for intervals (R,) around values (R,)."""
    return {
        "type": "data",
        "symmetric": False,
        "array": jsonable(high - values),
        "arrayminus": jsonable(values - low),
        "color": color,
        "thickness": thickness,
        "width": 0,
    }


def empty_plotly(sentence: str) -> go.Figure:
    """What stands where there is nothing to draw: the sentence that says so."""
    note = {"text": _wrapped(plotly_text, sentence, "<br>"), "font": {"size": 16, "color": LIGHT.muted}}
    place = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
    hidden = {"visible": False, "fixedrange": True}
    return plotly_figure([], height=240, annotations=[{**note, **place}], xaxis=hidden, yaxis=hidden)


@cache
def matplotlib_settings() -> dict[str, Any]:
    """Matplotlib's side of the template; sizes in points."""
    installed = {font.name for font in font_manager.fontManager.ttflist}  # naming others logs a warning for each
    return {
        "font.family": [name for name in _PRINT_FONTS if name in installed],
        "font.size": 9,
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 12,
        "axes.labelsize": 9,
        "axes.labelcolor": LIGHT.muted,
        "axes.edgecolor": LIGHT.line,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "grid.color": LIGHT.grid,
        "grid.linewidth": 0.8,
        "xtick.color": LIGHT.line,
        "ytick.color": LIGHT.line,
        "xtick.labelcolor": LIGHT.muted,
        "ytick.labelcolor": LIGHT.muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "text.color": LIGHT.ink,
        "legend.frameon": False,
        "figure.facecolor": LIGHT.surface,
        "axes.facecolor": LIGHT.surface,
        "figure.dpi": PNG_DPI,
    }


def matplotlib_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorator: draw under the house settings, and leave Matplotlib's own as they were."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(matplotlib_settings()):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return styled


def axes(title: str, *, height: float = 4.6) -> tuple[Figure, Axes]:
    """A figure of the house width with one set of axes, its title on the left. height: inches."""
    figure = Figure(figsize=(PNG_WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.14))
    FigureCanvasAgg(figure)
    drawn = figure.add_subplot()
    if title:
        drawn.set_title(matplotlib_text(title))
    return figure, drawn


def class_rows_matplotlib(drawn: Axes, names: tuple[str, ...]) -> None:
    """Rows 0 … K - 1 named, the first on top, in type that still fits."""
    size = 9 if len(names) <= 30 else 6.5
    drawn.set_yticks(range(len(names)), [matplotlib_text(name) for name in short_names(names)], fontsize=size)
    drawn.set_ylim(len(names) - 0.5, -0.5)
    drawn.grid(False, axis="y")


def rows_inches(rows: int) -> float:
    """Height of a picture of one row a class, in inches."""
    return 1.4 + max(rows, 6) * (0.27 if rows <= 30 else 0.15)


@matplotlib_style
def empty_matplotlib(title: str, sentence: str) -> Figure:
    """The static twin of `empty_plotly`."""
    figure, drawn = axes(title, height=2.6)
    drawn.set_axis_off()
    text = _wrapped(matplotlib_text, sentence, "\n")
    drawn.text(0.5, 0.5, text, ha="center", va="center", fontsize=11, color=LIGHT.muted, transform=drawn.transAxes)
    return figure


def _wrapped(escape: Callable[[str], str], sentence: str, newline: str) -> str:
    return newline.join(escape(line) for line in textwrap.wrap(sentence, 40))
