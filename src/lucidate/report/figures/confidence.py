"""Confidence of right against wrong predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.confidence import ConfidenceHistogram
from lucidate.analysis.formatting import count, percent
from lucidate.core.records import jsonable
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import TRUST, FigureEntry

TITLE = "Confidence of right and wrong predictions"
RIGHT, WRONG = theme.LIGHT.right, theme.LIGHT.wrong


def draw_plotly(info: ConfidenceHistogram) -> go.Figure:
    """Bars a bin, first as shares of each group: by count the few wrong ones would be a line on the ground."""
    centers, shares = _centers(info), [_share(info.right), _share(info.wrong)]

    def bars(name: str, counts: NDArray[np.int64], color: str) -> go.Bar:
        share = _share(counts)
        hover = [
            f"{count(number)} of {count(int(counts.sum()), f'{name} prediction')} ({percent(part)})<br>"
            f"at {100 * low:.0f}–{100 * high:.0f} % confidence"
            for number, part, low, high in zip(
                counts.tolist(), share.tolist(), info.edges[:-1].tolist(), info.edges[1:].tolist(), strict=True
            )
        ]
        return go.Bar(
            x=centers.tolist(),
            y=share.tolist(),
            name=f"{name} ({count(int(counts.sum()))})",
            marker={"color": color, "line": {"width": 0}},
            hovertext=hover,
            hoverinfo="text",
        )

    as_counts = {"y": [info.right.tolist(), info.wrong.tolist()]}
    as_shares = {"y": [share.tolist() for share in shares]}
    longest = int(np.stack([info.right, info.wrong]).max())
    return frame.plotly_figure(
        [bars("right", info.right, RIGHT), bars("wrong", info.wrong, WRONG)],
        height=480,
        barmode="group",
        bargap=0.18,
        bargroupgap=0.06,
        shapes=[
            _mean_line(mean, color)
            for mean, color in ((info.mean_right, RIGHT), (info.mean_wrong, WRONG))
            if np.isfinite(mean)
        ],
        updatemenus=frame.menu(
            (
                "Share of group",
                as_shares,
                {"yaxis.title.text": "Share of the group", **_axis(frame.share_axis())},
            ),
            (
                "Count",
                as_counts,
                {"yaxis.title.text": "Predictions", **_axis(frame.whole_axis(longest))},
            ),
        ),
        xaxis={
            "title": {"text": "Confidence (dotted: means of the groups)"},
            "tickformat": ".0%",
            "dtick": 0.2,
            "range": [-0.005, 1.005],
            "showgrid": False,
        },
        yaxis={"title": {"text": "Share of the group"}, **frame.share_axis(), "rangemode": "tozero"},
    )


@frame.static_drawing
def draw_matplotlib(info: ConfidenceHistogram, style: frame.StaticStyle) -> Figure:
    """The same bars as shares, static."""
    figure, axes = frame.axes(TITLE, style)
    width = float(np.diff(info.edges).min()) * 0.41
    for side, (name, counts, color, mean) in enumerate(
        (("right", info.right, RIGHT, info.mean_right), ("wrong", info.wrong, WRONG, info.mean_wrong))
    ):
        label = f"{name} ({count(int(counts.sum()))})"
        axes.bar(_centers(info) + (side - 0.5) * width, _share(counts), width, color=color, label=label)
        if np.isfinite(mean):
            axes.axvline(mean, color=color, linestyle=":", linewidth=1.4)
    axes.set(xlabel="Confidence (dotted: means of the groups)", ylabel="Share of the group")
    axes.set_xlim(0, 1)
    axes.grid(False, axis="x")
    frame.share_ticks(axes.xaxis)
    frame.share_ticks(axes.yaxis)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    return figure


def _axis(look: dict[str, Any]) -> dict[str, Any]:
    """Changes that give the vertical axis another look, and take back what the one before it had set."""
    plain: dict[str, Any] = {
        "tickmode": "linear" if "dtick" in look else "auto",
        "tickformatstops": [],
        "autorange": True,
    }
    return {f"yaxis.{key}": value for key, value in {**plain, **look}.items()}


def _centers(info: ConfidenceHistogram) -> NDArray[np.float64]:
    return (info.edges[:-1] + info.edges[1:]) / 2


def _share(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts as shares of their sum; zeros where there is none."""
    return counts / max(int(counts.sum()), 1)


def _mean_line(mean: float, color: str) -> dict[str, object]:
    position = {"type": "line", "x0": jsonable(mean), "x1": jsonable(mean), "y0": 0, "y1": 1, "yref": "paper"}
    return {**position, "line": {"color": color, "dash": "dot", "width": 1.5}}


FIGURES = (
    FigureEntry(
        "{dataset}_confidence_hist",
        TITLE,
        TRUST,
        "confidence",
        draw_plotly=draw_plotly,
        draw_matplotlib=draw_matplotlib,
    ),
)
