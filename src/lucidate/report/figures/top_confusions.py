"""The most frequent wrong answers, as bars."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.confusion import TopConfusions
from lucidate.analysis.formatting import count, percent
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import ERRORS, FigureEntry
from lucidate.report.labels import short_names

TITLE = "Most frequent confusions"
SHOWN = 25  # pairs drawn; the table holds all that were listed
NAME_LIMIT = 16  # characters of each of the two names on an axis
LINE = 22  # characters of a pair; longer ones take two lines, or they would not fit a phone
TALLER = 8  # CSS pixels more a pair of two lines


def draw_plotly(info: TopConfusions) -> go.Figure:
    """One bar a pair "true → predicted", the most frequent on top; customdata is [true, predicted]."""
    if not info.errors:
        return frame.empty_plotly(info.headline)
    rows = _most_frequent(info)
    pairs = _pairs(info, rows)
    long = max(map(len, pairs)) > LINE
    labels = [theme.plotly_text(pair).replace(" → ", "<br>→ " if long else " → ") for pair in pairs]
    names = [theme.plotly_text(name) for name in info.class_names]
    verbs = ["was" if number == 1 else "were" for number in info.counts.tolist()]
    hover = [
        f"{count(int(info.counts[row]))} of {count(int(info.totals[info.true[row]]), 'image')} of "
        f"<b>{names[info.true[row]]}</b><br>"
        f"{verbs[row]} taken for <b>{names[info.predicted[row]]}</b> ({percent(info.shares[row])})"
        for row in rows
    ]
    bars = go.Bar(
        x=info.counts[rows].tolist(),
        y=list(range(len(rows))),
        orientation="h",
        marker={"color": theme.LIGHT.wrong, "line": {"width": 0}},
        text=[_amount(info, row) for row in rows],
        textposition="outside",
        cliponaxis=False,
        textfont={"size": 12},
        customdata=np.stack([info.true[rows], info.predicted[rows]], axis=1).tolist(),
        hovertext=hover,
        hoverinfo="text",
    )
    longest = int(info.counts[rows].max())
    return frame.plotly_figure(
        [bars],
        margin={"r": 16 + 7 * max(len(text) for text in bars.text)},
        height=frame.row_height(len(rows)) + (TALLER * len(rows) if long else 0),
        xaxis={"title": {"text": "Images"}, **frame.whole_axis(longest, most=3), "range": [0, longest * 1.02]},
        yaxis={
            "tickmode": "array",
            "tickvals": list(range(len(rows))),
            "ticktext": labels,
            "range": [len(rows) - 0.5, -0.5],
            "showgrid": False,
        },
    )


@frame.static_drawing
def draw_matplotlib(info: TopConfusions, style: frame.StaticStyle) -> Figure:
    """The same bars, static."""
    if not info.errors:
        return frame.empty_matplotlib(TITLE, info.headline)
    rows = _most_frequent(info)
    figure, axes = frame.axes(TITLE, style, height=frame.rows_inches(len(rows)))
    axes.barh(range(len(rows)), info.counts[rows], height=0.68, color=theme.LIGHT.wrong)
    axes.set_yticks(range(len(rows)), [theme.matplotlib_text(pair) for pair in _pairs(info, rows)])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set_xlabel("Images")
    longest = int(info.counts[rows].max())
    axes.set_xlim(0, longest * 1.16)
    frame.whole_ticks(axes.xaxis)
    for position, row in enumerate(rows):
        axes.text(info.counts[row] + longest * 0.01, position, _amount(info, row), va="center", fontsize=8)
    return figure


def _most_frequent(info: TopConfusions) -> NDArray[np.intp]:
    """Rows of the info by falling count; ties stay in class order."""
    return np.argsort(-info.counts, kind="stable")[:SHOWN]


def _pairs(info: TopConfusions, rows: NDArray[np.intp]) -> list[str]:
    """The pairs of these rows as labels."""
    drawn = np.unique([info.true[rows], info.predicted[rows]]).tolist()
    short = dict(zip(drawn, short_names([info.class_names[k] for k in drawn], NAME_LIMIT), strict=True))
    return [f"{short[info.true[row]]} → {short[info.predicted[row]]}" for row in rows]


def _amount(info: TopConfusions, row: int) -> str:
    return f"{count(int(info.counts[row]))} ({percent(info.shares[row])})"


FIGURES = (
    FigureEntry(
        "{dataset}_top_confusions",
        TITLE,
        ERRORS,
        "top_confusions",
        draw_plotly=draw_plotly,
        draw_matplotlib=draw_matplotlib,
    ),
)
