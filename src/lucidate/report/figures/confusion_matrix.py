"""True against predicted class, counts or shares of the true class.

Two scales, one a hue. On one shared scale the diagonal (most images, if the model is any good) takes all the range and
every error looks white. So hits are teal from 0 to 1, and errors vermilion from 0 to the largest error, with colour
growing as the square root of the share: a pair confused in 1 % of its images must show beside one of 16 %. The scale of
errors ends at 5 % or above, or the one error of a near-perfect model would look as dark as a class that is lost. What
holds nothing has no tint, on the diagonal either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.confusion import ConfusionMatrix
from lucidate.analysis.formatting import count, percent
from lucidate.core.records import jsonable
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import ERRORS, FigureEntry
from lucidate.report.labels import short_names

TITLE = "Confusion matrix"
LEAST_TOP = 0.05  # share of the true class: the darkest vermilion stands for no less
VECTOR_CELLS = 2_500  # in print; more would be slow to show, and are embedded as an image
MAX_NUMBERED = 20  # classes; beyond, a cell is too small for its number
MAX_WORDED_ZEROS = 30  # classes; beyond, empty cells say nothing on hover, which saves most of the page's bytes
RIGHT = (theme.LIGHT.right_0, theme.LIGHT.right_1, theme.LIGHT.right_2)
WRONG = (theme.LIGHT.wrong_0, theme.LIGHT.wrong_1, theme.LIGHT.wrong_2, theme.LIGHT.wrong_3)


def draw_plotly(info: ConfusionMatrix) -> go.Figure:
    """Rows are true classes, columns predicted ones.

    customdata of a cell are class indices, [true, predicted]: a click is enough to filter images by pair of classes.
    """
    shown = drawn(info)
    k, names = len(shown), tuple(info.class_names[each] for each in shown)
    numbers, normalized = _part(info, shown)
    hits = np.eye(k, dtype=bool) & (numbers > 0)
    pairs = np.stack(np.meshgrid(shown, shown, indexing="ij"), axis=-1).tolist()
    hover = _hover(info, shown)
    counts, shares = _texts(numbers, "{:,}"), _texts(100 * normalized, "{:.1f}")

    def heatmap(cells: NDArray[np.bool_], scale: list[list[Any]], zmax: float) -> go.Heatmap:
        return go.Heatmap(
            z=jsonable(np.where(cells, normalized, np.nan)),
            zmin=0,
            zmax=zmax,
            colorscale=scale,
            showscale=False,
            hoverongaps=False,
            xgap=1.5,
            ygap=1.5,
            text=np.where(cells, counts, "").tolist(),
            texttemplate="%{text}" if k <= MAX_NUMBERED else None,
            textfont={"size": 13 if k <= 12 else 10},
            hovertext=np.where(cells, hover, "").tolist(),
            hoverinfo="text",
            customdata=pairs,
        )

    right = heatmap(hits, [[i / 2, color] for i, color in enumerate(RIGHT)], 1.0)
    wrong = heatmap(~hits, [[(i / 3) ** 2, color] for i, color in enumerate(WRONG)], top_of_errors(info))
    texts = [[np.where(cells, text, "").tolist() for cells in (hits, ~hits)] for text in (counts, shares)]
    turn = None if k <= MAX_NUMBERED else -90
    small = {"tickfont": {"size": 9, "color": theme.LIGHT.muted}} if k > 30 else {}
    return frame.plotly_figure(
        [right, wrong],
        height=max(420, 160 + 50 * k) if k <= MAX_NUMBERED else max(900, 160 + 14 * k),
        xaxis={**frame.class_axis(names), **small, "title": {"text": "Predicted class"}, "tickangle": turn},
        yaxis={**frame.class_rows(names), **small, "title": {"text": "True class"}},
        updatemenus=frame.menu(("Counts", {"text": texts[0]}, {}), ("% of true class", {"text": texts[1]}, {}))
        if k <= MAX_NUMBERED
        else None,
    )


@frame.static_drawing
def draw_matplotlib(info: ConfusionMatrix, style: frame.StaticStyle) -> Figure:
    """The same matrix with counts, static."""
    shown = drawn(info)
    k = len(shown)
    numbers, normalized = _part(info, shown)
    hits = np.eye(k, dtype=bool) & (numbers > 0)
    figure, axes = frame.axes(TITLE, style, height=7.0)
    right = LinearSegmentedColormap.from_list("right", RIGHT)
    wrong = LinearSegmentedColormap.from_list("wrong", WRONG)
    root = PowerNorm(0.5, vmin=0, vmax=top_of_errors(info))
    cells = style.printed and k * k <= VECTOR_CELLS
    _tint(axes, np.where(hits, normalized, np.nan), right, Normalize(0, 1), cells=cells)
    _tint(axes, np.where(hits, np.nan, normalized), wrong, root, cells=cells)
    axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
    size = 9 if k <= 30 else 5.5
    names = [theme.matplotlib_text(name) for name in short_names([info.class_names[each] for each in shown])]
    long = max(map(len, names)) * k > 90  # characters that a row of labels has room for
    axes.set_xticks(range(k), names, fontsize=size, rotation=90 if k > 20 else 40 if long else 0)
    if long and k <= 20:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(k), names, fontsize=size)
    axes.set(xlabel="Predicted class", ylabel="True class")
    if not style.printed:
        figure.supxlabel(note(info), fontsize=8, color=theme.LIGHT.muted)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=theme.LIGHT.surface, linewidth=1.5 if k <= 30 else 0.3)
    axes.tick_params(which="minor", length=0)
    if k <= MAX_NUMBERED:
        for (true, predicted), text in np.ndenumerate(_texts(numbers, "{:,}")):
            if not text:
                continue
            share = normalized[true, predicted]
            strong = right(share) if true == predicted else wrong(root(share))
            color = theme.LIGHT.surface if sum(strong[:3]) < 1.5 else theme.LIGHT.ink
            axes.text(predicted, true, text, ha="center", va="center", color=color, fontsize=9 if k <= 12 else 6.5)
    return figure


def _tint(
    axes: Axes, shares: NDArray[np.float64], colors: LinearSegmentedColormap, norm: Normalize, *, cells: bool
) -> None:
    """Color shares (k, k), NaN where there is no tint. cells: as rectangles in place of an image."""
    if cells:
        edges = np.arange(len(shares) + 1) - 0.5
        axes.pcolormesh(edges, edges, np.ma.masked_invalid(shares), cmap=colors, norm=norm, zorder=0)
    else:
        axes.imshow(shares, cmap=colors, norm=norm, aspect="auto")


def top_of_errors(info: ConfusionMatrix) -> float:
    """Share of the true class at which an error is darkest: the largest one, at least 5 %."""
    shown = drawn(info)
    errors = np.where(np.eye(len(shown), dtype=bool), 0, _part(info, shown)[1])
    return max(float(np.nanmax(errors)), LEAST_TOP)


def drawn(info: ConfusionMatrix) -> NDArray[np.intp]:
    """Ascending class indices: all or, of very many, those of the most frequent confusions, then the largest ones."""
    if len(info.class_names) <= frame.MOST_CLASSES:
        return np.arange(len(info.class_names))
    errors = info.counts - np.diag(np.diag(info.counts))
    pairs = np.argsort(-errors, axis=None, kind="stable")[: np.count_nonzero(errors)]
    involved = np.stack(np.unravel_index(pairs, errors.shape), axis=1).ravel()
    ranked = np.concatenate([involved, np.argsort(-info.counts.sum(axis=1), kind="stable")])
    first = np.sort(np.unique(ranked, return_index=True)[1])  # where each class comes up for the first time
    return np.sort(frame.limited(ranked[first]))


def note(info: ConfusionMatrix) -> str:
    """What it leaves out, and how its colors are to be read."""
    empty = "" if info.counts[drawn(info)].any(axis=1).all() else " An empty row is a class without images."
    some = frame.drawn_note(len(info.class_names), "of the most frequent confusions")
    return (
        f"{some} Color tells the share of the true class: teal is right, darkest at 100 %; "
        f"vermilion is wrong, darkest at {percent(top_of_errors(info))}.{empty}"
    ).strip()


def _part(info: ConfusionMatrix, shown: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts of the cells drawn, and their shares of all images of the true class."""
    cells = np.ix_(shown, shown)
    return info.counts[cells], info.normalized[cells]


def _texts(values: NDArray[Any], form: str) -> NDArray[np.str_]:
    """Numbers as words for cells; zeros and what is unknown stay blank, or they would hide the errors among them."""
    return np.array([[form.format(value) if value > 0 else "" for value in row] for row in values.tolist()])


def _hover(info: ConfusionMatrix, shown: NDArray[np.intp]) -> NDArray[np.str_]:
    names = [theme.plotly_text(info.class_names[each]) for each in shown]
    totals = info.counts[shown].sum(axis=1)

    def words(true: int, predicted: int, number: int, share: float) -> str:
        if not number and len(names) > MAX_WORDED_ZEROS:
            return ""
        verb = "was" if number == 1 else "were"
        what = "recognized" if true == predicted else f"taken for <b>{names[predicted]}</b>"
        of = f"{count(int(totals[true]), 'image')} of <b>{names[true]}</b>"
        return f"{count(number)} of {of}<br>{verb} {what} ({percent(share)})"

    rows = zip(*(values.tolist() for values in _part(info, shown)), strict=True)
    return np.array(
        [
            [words(true, predicted, *cell) for predicted, cell in enumerate(zip(*row, strict=True))]
            for true, row in enumerate(rows)
        ]
    )


FIGURES = (
    FigureEntry(
        "{dataset}_confusion_matrix",
        TITLE,
        ERRORS,
        "confusion_matrix",
        "matrix",
        draw_plotly=draw_plotly,
        draw_matplotlib=draw_matplotlib,
        note=note,
    ),
)
