"""Accuracy or loss over epochs, training beside validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from lucidate.analysis.formatting import percent
from lucidate.analysis.summary import TrainingCurve
from lucidate.core.records import jsonable
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import TRAINING, FigureEntry

TRAIN, VALIDATION = theme.LIGHT.slate, theme.LIGHT.right
AXES = {"accuracy": "Accuracy", "loss": "Cross-entropy (nats)"}


def draw_plotly(info: TrainingCurve) -> go.Figure:
    """Two lines; the best validation epoch carries a ring and its value."""
    accuracy = info.measure == "accuracy"
    epochs = list(range(1, len(info.train) + 1))

    def line(name: str, values: tuple[float, ...], color: str) -> go.Scatter:
        return go.Scatter(
            x=epochs,
            y=jsonable(values),
            name=name,
            mode="lines" if len(values) > 1 else "markers",
            line={"color": color, "width": 2.5},
            marker={"color": color, "size": 9},
            text=[_value(info, value) for value in values],
            hovertemplate=f"%{{text}}<extra>{name}</extra>",
        )

    ring = go.Scatter(
        x=[info.best_epoch],
        y=jsonable([info.best]),
        mode="markers",
        marker={"size": 13, "color": theme.LIGHT.surface, "line": {"color": VALIDATION, "width": 3}},
        hoverinfo="skip",
        showlegend=False,
    )
    label = {"x": info.best_epoch, "y": info.best, "text": _label(info), "font": {"color": theme.LIGHT.muted}}
    label |= {"showarrow": False, "yshift": -22 if accuracy else 22, "xanchor": _side(info)}
    label |= {"bgcolor": theme.LIGHT.surface, "opacity": 0.85}  # over the other line, where that runs close
    epoch = {"title": {"text": "Epoch"}, "unifiedhovertitle": {"text": "epoch %{x:d}"}, "showgrid": False}
    shares = frame.share_axis() if accuracy else {}
    return frame.plotly_figure(
        [line("training", info.train, TRAIN), line("validation", info.validation, VALIDATION), ring],
        height=480,
        hovermode="x unified",
        annotations=[label] if jsonable(info.best) is not None else [],
        xaxis={**epoch, "range": _epochs(info), **frame.whole_axis(len(epochs))},
        yaxis={"title": {"text": AXES[info.measure]}, "range": _range(info), **shares},
    )


def draw_matplotlib(info: TrainingCurve, title: str, style: frame.StaticStyle) -> Figure:
    """The same lines, static."""
    figure, axes = frame.axes(title, style)
    epochs = range(1, len(info.train) + 1)
    marker = "o" if len(info.train) == 1 else ""
    axes.plot(epochs, info.train, color=TRAIN, linewidth=2, marker=marker, label="training")
    axes.plot(epochs, info.validation, color=VALIDATION, linewidth=2, marker=marker, label="validation")
    ring: dict[str, Any] = {"facecolor": theme.LIGHT.surface, "edgecolor": VALIDATION, "linewidth": 2}
    axes.scatter([info.best_epoch], [info.best], s=56, zorder=4, **ring)
    if not style.printed:  # where the caption names the best epoch; the label would lie on the lines
        offset = (0, -17 if info.measure == "accuracy" else 12)
        near: dict[str, Any] = {"textcoords": "offset points", "ha": _side(info), "color": theme.LIGHT.muted}
        axes.annotate(_label(info), (info.best_epoch, info.best), offset, **near)
    axes.grid(False, axis="x")
    axes.set(xlabel="Epoch", ylabel=AXES[info.measure], xlim=_epochs(info), ylim=_range(info))
    frame.whole_ticks(axes.xaxis)
    if info.measure == "accuracy":
        frame.share_ticks(axes.yaxis)
    frame.legend(axes)
    return figure


def _value(info: TrainingCurve, value: float) -> str:
    return percent(value) if info.measure == "accuracy" else f"{value:.3f}"


def _label(info: TrainingCurve) -> str:
    return f"best: epoch {info.best_epoch}, {_value(info, info.best)}"


def _side(info: TrainingCurve) -> str:
    """How the label stands to its ring: at the right end it would leave the picture."""
    return "right" if info.best_epoch > len(info.train) / 2 else "left"


def _epochs(info: TrainingCurve) -> tuple[float, float]:
    """Range of the horizontal axis, with room for the ring."""
    pad = 0.5 if len(info.train) < 3 else 0.02 * len(info.train)
    return 1 - pad, len(info.train) + pad


def _range(info: TrainingCurve) -> tuple[float, float] | None:
    """Range of the vertical axis with room for the ring and its label; None, to be found, where no value is finite.

    An accuracy leaves the range of 0 to 1 no further than the ring does.
    """
    values = np.array(info.train + info.validation, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    least = 0.04 if info.measure == "accuracy" else 0.1 * abs(high)
    spare = max(least - (high - low), 0.0) / 2  # or noise of a flat curve would fill the picture
    pad = 0.1 * (high - low + 2 * spare)
    low, high, ring = low - spare - pad, high + spare + pad, 0.25 * pad
    return (max(low, -ring), min(high, 1 + ring)) if info.measure == "accuracy" else (low, high)


DRAWINGS = (draw_plotly, draw_matplotlib)
FIGURES = (
    FigureEntry("{dataset}_acc", "Accuracy by epoch", TRAINING, "accuracy_curve", drawings=DRAWINGS),
    FigureEntry("{dataset}_loss", "Loss by epoch", TRAINING, "loss_curve", drawings=DRAWINGS),
)
