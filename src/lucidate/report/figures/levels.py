"""Test accuracy of each level of a challenge, with its interval; an ensemble's members beside it."""

from __future__ import annotations

import textwrap

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from lucidate.analysis.formatting import interval, percent, points
from lucidate.analysis.levels import Level, LevelsTable
from lucidate.core.records import jsonable
from lucidate.report import theme
from lucidate.report.figures import frame

TITLE = "Accuracy of each level"
LINE = 22  # characters of a line of a level's name on the axis
ROW = 56  # CSS pixels a level: three such lines
AXIS = "Test accuracy and 95 % interval"


def draw_plotly(info: LevelsTable) -> go.Figure:
    """One row a level, the first on top: a point and its interval; rings are members; customdata is the level."""
    levels, rows = info.levels, list(range(len(info.levels)))
    accuracy = np.array([level.test_accuracy for level in levels])
    high = np.array([level.test_high for level in levels])
    low = np.array([level.test_low for level in levels])
    whole = go.Scatter(
        x=jsonable(accuracy),
        y=rows,
        mode="markers",
        name="level",
        marker={"size": 12, "color": theme.LIGHT.right},
        error_x=frame.interval_bars(accuracy, low, high),
        customdata=[level.level for level in levels],
        hovertext=[_words(level) for level in levels],
        hoverinfo="text",
    )
    members = [(row, member) for row, level in enumerate(levels) for member in level.members]
    traces = [whole]
    if members:
        rings = go.Scatter(
            x=[member.test_accuracy for _, member in members],
            y=[row for row, _ in members],
            mode="markers",
            name="member of an ensemble",
            marker={"size": 10, "symbol": "circle-open", "color": theme.LIGHT.slate, "line": {"width": 2}},
            customdata=[levels[row].level for row, _ in members],
            hovertext=[_words(member) for _, member in members],
            hoverinfo="text",
        )
        traces = [rings, whole]
    names = ["<br>".join(theme.plotly_text(line) for line in _name(level)) for level in levels]
    return frame.plotly_figure(
        traces,
        height=150 + ROW * len(rows),
        showlegend=bool(members),
        xaxis={"title": {"text": AXIS}, **frame.share_axis(), "range": _range(info)},
        yaxis={"tickmode": "array", "tickvals": rows, "ticktext": names, "range": [len(rows) - 0.5, -0.5]},
    )


@frame.static_drawing
def draw_matplotlib(info: LevelsTable, style: frame.StaticStyle) -> Figure:
    """The same points with their values, static."""
    figure, axes = frame.axes(TITLE, style, height=0.75 + 0.36 * max(len(info.levels), 2))
    for row, level in enumerate(info.levels):
        axes.hlines(row, level.test_low, level.test_high, color=theme.LIGHT.slate, linewidth=1.8)
        inside = [member.test_accuracy for member in level.members]
        axes.scatter(
            inside, [row] * len(inside), s=30, facecolor=theme.LIGHT.surface, edgecolor=theme.LIGHT.slate, zorder=3
        )
        axes.scatter([level.test_accuracy], [row], s=44, color=theme.LIGHT.right, zorder=4)
        axes.annotate(
            percent(level.test_accuracy),
            (level.test_accuracy, row),
            textcoords="offset points",
            xytext=(0, 7),
            ha="center",
        )
    names = ["\n".join(theme.matplotlib_text(line) for line in _name(level)) for level in info.levels]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.75)
    axes.set_xlabel(AXIS)
    axes.set_xlim(*_range(info))
    frame.share_ticks(axes.xaxis)
    return figure


def note(info: LevelsTable) -> str:
    """How the drawing is to be read."""
    members = " A ring is one member of an ensemble by itself." if any(level.members for level in info.levels) else ""
    return f"A line is the 95 % interval of the accuracy.{members}"


def _name(level: Level) -> list[str]:
    """A level's number and name in lines."""
    return textwrap.wrap(f"{level.level}. {level.title or level.model}", LINE)


def _words(level: Level) -> str:
    name, model = theme.plotly_text(level.title), theme.plotly_text(level.model)
    lines = [f"<b>{name}</b>"] if level.title else []
    lines += [model, f"{percent(level.test_accuracy)} ({interval(level.test_low, level.test_high)})"]
    if level.change is not None:
        lines.append(f"{points(level.change)} against the level before")
    return "<br>".join(lines)


def _range(info: LevelsTable) -> list[float]:
    """Axis from a round 5 % below the lowest point to a little above the highest, at most a little over 100 %."""
    every = [level for each in info.levels for level in (each, *each.members)]
    low = min(min(level.test_low, level.test_accuracy) for level in info.levels)
    low = min([low, *(level.test_accuracy for level in every)])
    high = max([*(level.test_high for level in info.levels), *(level.test_accuracy for level in every)])
    return [max(0.0, np.floor(low * 20) / 20) - 0.005, min(1.005, high + 0.05 * max(high - low, 0.02))]
