"""What is taken for what: true against predicted class as a matrix, and the most frequent confusions as bars.

The matrix has two scales, one a hue. On one shared scale the diagonal (most images, if the model is any good) takes all
the range and every error looks white. So hits are teal from 0 to 1, and errors vermilion from 0 to the largest error,
with color growing as the square root of the share: a pair confused in 1 % of its images must show beside one of 16 %.
The scale of errors ends at 5 % or above, or the one error of a near-perfect model would look as dark as a class that is
lost. What holds nothing has no tint, on the diagonal either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.confusion import ConfusionMatrix, TopConfusions
from lucidate.analysis.formatting import count, percent
from lucidate.core.records import jsonable
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import ERRORS, FigureEntry
from lucidate.report.figures.rows import RowChart, Series, row_height
from lucidate.report.theme import plotly_text, short_names

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
    k, names = len(shown), short_names([info.class_names[each] for each in shown])
    numbers, normalized, hits = _cells(info, shown)
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
    axis = frame.class_axis([plotly_text(name) for name in names])
    if k > 30:
        axis["tickfont"] = {"size": 9, "color": theme.LIGHT.muted}
    views = frame.menu(("Counts", {"text": texts[0]}, {}), ("% of true class", {"text": texts[1]}, {}))
    return frame.plotly_figure(
        [right, wrong],
        height=max(420, 160 + 50 * k) if k <= MAX_NUMBERED else max(900, 160 + 14 * k),
        xaxis={**axis, "title": {"text": "Predicted class"}, "tickangle": turn},
        yaxis={**axis, "title": {"text": "True class"}, "range": [k - 0.5, -0.5]},
        updatemenus=views if k <= MAX_NUMBERED else None,
    )


def draw_matplotlib(info: ConfusionMatrix, title: str, style: frame.StaticStyle) -> Figure:
    """The same matrix with counts, static."""
    shown = drawn(info)
    k = len(shown)
    numbers, normalized, hits = _cells(info, shown)
    figure, axes = frame.axes(title, style, height=7.0)
    right = LinearSegmentedColormap.from_list("right", RIGHT)
    wrong = LinearSegmentedColormap.from_list("wrong", WRONG)
    root = PowerNorm(0.5, vmin=0, vmax=top_of_errors(info))
    edges = np.arange(k + 1) - 0.5
    for cells, colors, norm in ((hits, right, Normalize(0, 1)), (~hits, wrong, root)):
        shares = np.where(cells, normalized, np.nan)
        if style.printed and k * k <= VECTOR_CELLS:
            axes.pcolormesh(edges, edges, np.ma.masked_invalid(shares), cmap=colors, norm=norm, zorder=0)
        else:
            axes.imshow(shares, cmap=colors, norm=norm, aspect="auto")
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
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
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


def top_of_errors(info: ConfusionMatrix) -> float:
    """Share of the true class at which an error is darkest: the largest one, at least 5 %."""
    shown = drawn(info)
    errors = np.where(np.eye(len(shown), dtype=bool), 0, _cells(info, shown)[1])
    return max(float(np.nanmax(errors)), LEAST_TOP)


def drawn(info: ConfusionMatrix) -> NDArray[np.intp]:
    """Ascending class indices: all or, of very many, those of the most frequent confusions, then the largest ones."""
    errors = info.counts - np.diag(np.diag(info.counts))
    pairs = np.argsort(-errors, axis=None, kind="stable")[: np.count_nonzero(errors)]
    involved = np.stack(np.unravel_index(pairs, errors.shape), axis=1).ravel()
    ranked = np.concatenate([involved, np.argsort(-info.counts.sum(axis=1), kind="stable")])
    first = np.sort(np.unique(ranked, return_index=True)[1])  # where each class comes up for the first time
    return np.sort(frame.limited(ranked[first], "")[0])


def note(info: ConfusionMatrix) -> str:
    """What it leaves out, and how its colors are to be read."""
    empty = "" if info.counts[drawn(info)].any(axis=1).all() else " An empty row is a class without images."
    some = frame.limited(np.arange(len(info.class_names)), "of the most frequent confusions")[1]
    return (
        f"{some} Color tells the share of the true class: teal is right, darkest at 100 %; "
        f"vermilion is wrong, darkest at {percent(top_of_errors(info))}.{empty}"
    ).strip()


def _cells(
    info: ConfusionMatrix, shown: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Of the cells drawn, counts, their shares of all images of the true class, and which are hits."""
    cells = np.ix_(shown, shown)
    counts = info.counts[cells]
    return counts, info.normalized[cells], np.eye(len(shown), dtype=bool) & (counts > 0)


def _texts(values: NDArray[Any], form: str) -> NDArray[np.str_]:
    """Numbers as words for cells; zeros and what is unknown stay blank, or they would hide the errors among them."""
    return np.array([[form.format(value) if value > 0 else "" for value in row] for row in values.tolist()])


def _hover(info: ConfusionMatrix, shown: NDArray[np.intp]) -> NDArray[np.str_]:
    names = [plotly_text(info.class_names[each]) for each in shown]
    totals = info.counts[shown].sum(axis=1).tolist()
    counts, shares, _ = _cells(info, shown)

    def words(true: int, predicted: int) -> str:
        number = int(counts[true, predicted])
        if not number and len(names) > MAX_WORDED_ZEROS:
            return ""
        what = "recognized" if true == predicted else f"taken for <b>{names[predicted]}</b>"
        return _sentence(number, totals[true], names[true], what, shares[true, predicted])

    return np.array([[words(true, predicted) for predicted in range(len(names))] for true in range(len(names))])


def _sentence(number: int, total: int, name: str, what: str, share: float) -> str:
    verb = "was" if number == 1 else "were"
    return f"{count(number)} of {count(total, 'image')} of <b>{name}</b><br>{verb} {what} ({percent(share)})"


SHOWN = 25  # pairs drawn; the table holds all that were listed
NAME_LIMIT = 16  # characters of each of the two names on an axis
LINE = 22  # characters of a pair; longer ones take two lines on a page, or they would not fit a phone
TALLER = 8  # CSS pixels more a pair of two lines


def top_confusions(info: TopConfusions) -> RowChart | None:
    """One bar a pair "true → predicted", the most frequent on top, ties in class order; None without errors."""
    if not info.errors:
        return None
    rows = np.argsort(-info.counts, kind="stable")[:SHOWN]
    counts, shares = info.counts[rows].tolist(), info.shares[rows].tolist()
    pairs = np.stack([info.true[rows], info.predicted[rows]], axis=1).tolist()
    involved = np.unique(pairs).tolist()
    short = dict(zip(involved, short_names([info.class_names[k] for k in involved], NAME_LIMIT), strict=True))
    long = max(len(short[true]) + len(short[predicted]) + 3 for true, predicted in pairs) > LINE
    arrow = "\n→ " if long else " → "
    labels = [f"{short[true]}{arrow}{short[predicted]}" for true, predicted in pairs]
    names = {k: plotly_text(info.class_names[k]) for k in involved}
    hover = [
        _sentence(number, int(info.totals[true]), names[true], f"taken for <b>{names[predicted]}</b>", share)
        for (true, predicted), number, share in zip(pairs, counts, shares, strict=True)
    ]
    return RowChart(
        labels,
        (Series(info.counts[rows], theme.LIGHT.wrong, hover, pairs),),
        "Images",
        scale="count",
        bars=True,
        limits=(0, 1.02 * counts[0]),
        static_limits=(0, 1.16 * counts[0]),
        texts=tuple(f"{count(number)} ({percent(share)})" for number, share in zip(counts, shares, strict=True)),
        height=row_height(len(rows)) + (TALLER * len(rows) if long else 0),
    )


MATRIX, TOP = "confusion_matrix", "top_confusions"
DRAWINGS = (draw_plotly, draw_matplotlib)
FIGURES = (
    FigureEntry(f"{{dataset}}_{MATRIX}", "Confusion matrix", ERRORS, MATRIX, "matrix", drawings=DRAWINGS, note=note),
    FigureEntry(f"{{dataset}}_{TOP}", "Most frequent confusions", ERRORS, TOP, rows=top_confusions),
)
