"""Accuracy or loss over epochs, training beside validation."""

from __future__ import annotations

import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lucidate.analyze.curves import TrainingCurve
from lucidate.analyze.wording import percent
from lucidate.core.records import jsonable
from lucidate.report import theme

TRAIN, VALIDATION = theme.LIGHT.slate, theme.LIGHT.right
TITLES = {"accuracy": "Accuracy by epoch", "loss": "Loss by epoch"}
AXES = {"accuracy": "Accuracy", "loss": "Cross-entropy (nats)"}


def draw_plotly(info: TrainingCurve) -> go.Figure:
    """Two lines; the best validation epoch carries a ring and its value."""
    accuracy = info.measure == "accuracy"
    value = "%{y:.1%}" if accuracy else "%{y:.3f}"
    epochs = list(range(1, len(info.train) + 1))

    def line(name: str, values: tuple[float, ...], color: str) -> go.Scatter:
        mode = "lines" if len(values) > 1 else "markers"
        return go.Scatter(
            x=epochs,
            y=jsonable(values),
            name=name,
            mode=mode,
            line={"color": color, "width": 2.5},
            marker={"color": color, "size": 9},
            hovertemplate=f"{value}<extra>{name}</extra>",
        )

    ring = go.Scatter(
        x=[info.best_epoch],
        y=jsonable([info.best]),
        mode="markers",
        marker={"size": 13, "color": theme.LIGHT.surface, "line": {"color": VALIDATION, "width": 3}},
        hoverinfo="skip",
        showlegend=False,
    )
    label = {
        "x": info.best_epoch,
        "y": info.best,
        "text": f"best: epoch {info.best_epoch}, {_value(info)}",
        "font": {"color": theme.LIGHT.muted},
        "showarrow": False,
        "yshift": -22 if accuracy else 22,
        # A label at the right end would leave the picture.
        "xanchor": "right" if info.best_epoch > len(epochs) / 2 else "left",
    }
    return theme.plotly_figure(
        [line("training", info.train, TRAIN), line("validation", info.validation, VALIDATION), ring],
        height=480,
        hovermode="x unified",
        annotations=[label] if jsonable(info.best) is not None else [],
        xaxis={"title": {"text": "Epoch"}, "showgrid": False, "hoverformat": "d", "tickformat": "d"},
        yaxis={"title": {"text": AXES[info.measure]}, "tickformat": ".0%" if accuracy else None},
    )


@theme.matplotlib_style
def draw_matplotlib(info: TrainingCurve) -> Figure:
    """The same lines, still."""
    figure, axes = theme.axes(TITLES[info.measure])
    epochs = range(1, len(info.train) + 1)
    marker = "o" if len(info.train) == 1 else ""
    axes.plot(epochs, info.train, color=TRAIN, linewidth=2, marker=marker, label="training")
    axes.plot(epochs, info.validation, color=VALIDATION, linewidth=2, marker=marker, label="validation")
    axes.scatter(
        [info.best_epoch],
        [info.best],
        s=56,
        facecolor=theme.LIGHT.surface,
        edgecolor=VALIDATION,
        linewidth=2,
        zorder=4,
    )
    axes.annotate(
        f"best: epoch {info.best_epoch}, {_value(info)}",
        (info.best_epoch, info.best),
        textcoords="offset points",
        xytext=(0, -17 if info.measure == "accuracy" else 12),
        ha="right" if info.best_epoch > len(info.train) / 2 else "left",
        color=theme.LIGHT.muted,
    )
    axes.set_xlabel("Epoch")
    axes.set_ylabel(AXES[info.measure])
    axes.grid(False, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if info.measure == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    return figure


def _value(info: TrainingCurve) -> str:
    return percent(info.best) if info.measure == "accuracy" else f"{info.best:.3f}"
