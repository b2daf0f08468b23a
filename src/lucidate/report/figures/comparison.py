"""Models side by side: the change of each class, the images that flipped, and the levels of a challenge."""

from __future__ import annotations

import textwrap

import numpy as np

from lucidate.analysis.comparison import ClassChanges, Flips
from lucidate.analysis.formatting import interval, percent, points, points_interval, signed_points
from lucidate.analysis.studies import Level, LevelsTable
from lucidate.report import theme
from lucidate.report.figures.entry import FigureEntry
from lucidate.report.figures.rows import RowChart, Series
from lucidate.report.figures.tile_grid import CAPTION_LIMIT, MAX_TILES, Captions, TileGrid
from lucidate.report.theme import plotly_text, short_names, shorten, telling

SHOWN = 30  # classes drawn, those with the largest changes; the table holds all
PALE = 0.4  # opacity of a bar whose interval includes 0


def changes(info: ClassChanges) -> RowChart:
    """A bar a class, from the largest gain to the largest loss, in points, with 95 % intervals."""
    judged = int((info.total > 0).sum())
    rows = info.order[: min(SHOWN, judged)]
    rows = rows[np.argsort(-info.change[rows], kind="stable")]
    change, low, high = (100 * values[rows] for values in (info.change, info.low, info.high))
    left, right = min(0.0, float(low.min())), max(0.0, float(high.max()))
    margin = 0.16 * (right - left)  # room for the numbers, on a phone's screen too
    hover = [
        f"<b>{plotly_text(info.class_names[k])}</b><br>{percent(info.accuracy_a[k])} → {percent(info.accuracy_b[k])}"
        f"<br>{points(info.change[k])} ({points_interval(info.low[k], info.high[k])})<br>"
        f"{info.fixed[k]:,} fixed, {info.broken[k]:,} broken of {info.total[k]:,}"
        for k in rows
    ]
    note = (
        "Lines are 95 % intervals; a bar is pale where its interval includes 0, "
        "and of twenty classes that did not change one would still stand out."
    )
    if judged > SHOWN:
        note += f" Drawn are the {SHOWN} classes that changed most; the table has all."
    bars = Series(
        change,
        [theme.LIGHT.wrong if info.change[k] < 0 else theme.LIGHT.right for k in rows],
        hover,
        rows.tolist(),
        low=low,
        high=high,
        opacity=[1.0 if info.clear[k] else PALE for k in rows],
    )
    a, b = (shorten(name) for name in info.names)
    return RowChart(
        short_names([info.class_names[k] for k in rows]),
        (bars,),
        "Accuracy of B less A, in points",
        scale="points",
        bars=True,
        limits=(left - margin, right + margin),
        static_axis=f"Accuracy of {b} less that of {a}, percentage points",
        texts=tuple(signed_points(info.change[k]) for k in rows),
        line=(0.0, ""),
        note=note,
    )


def flips_grid(info: Flips) -> TileGrid | None:
    """The images with both answers under each; None where nothing flipped."""
    if not len(info):
        return None
    total = min(len(info), MAX_TILES)
    first, second = (tiles.take(np.arange(total)) for tiles in (info.first, info.second))
    wrong = first if info.fixed else second
    names, short = first.class_names, telling(first.class_names, CAPTION_LIMIT)

    def words(tile: int) -> tuple[str, ...]:
        """The class, the wrong answer, the right one, the change of the true class, the id."""
        true, said = names[first.labels[tile]], []
        for letter, name, tiles in (("A", info.names[0], first), ("B", info.names[1], second)):
            right = tiles.predicted[tile] == tiles.labels[tile]
            verb = "recognized" if right else f"taken for {names[tiles.predicted[tile]]}"
            said.append(f"{letter} {shorten(name)}: {verb}, {percent(tiles.confidence[tile])} sure")
        own = " → ".join(percent(tiles.true_probability[tile]) for tiles in (first, second))
        return (true, *(said if info.fixed else said[::-1]), f"{own} for {true}", str(first.ids[tile]))

    sides = [
        Captions(
            tuple(f"{letter} {short[label]}" for label in tiles.predicted),
            tuple(map(percent, tiles.confidence)),
            ~tiles.correct,
        )
        for letter, tiles in (("A", first), ("B", second))
    ]
    return TileGrid(
        ids=first.ids,
        index=first.index,
        cells=np.arange(total),
        words=tuple(map(words, range(total))),
        pairs=tuple(zip(wrong.labels.tolist(), wrong.predicted.tolist(), strict=True)),
        outlined=np.zeros(total, dtype=np.bool_),
        captions=(Captions(tuple(short[label] for label in first.labels)), *sides),
        left_out=len(info) - total,
    )


LINE = 22  # characters of a line of a level's name on the axis
ROW = 56  # CSS pixels a level: three such lines


def levels(info: LevelsTable) -> RowChart:
    """A point and its interval a level, the first on top; rings are members of an ensemble."""
    inside = [(row, member) for row, level in enumerate(info.levels) for member in level.members]
    accuracies = np.array([level.test_accuracy for level in info.levels])
    whole = Series(
        accuracies,
        theme.LIGHT.right,
        [_level_words(level) for level in info.levels],
        [level.level for level in info.levels],
        name="level",
        low=np.array([level.test_low for level in info.levels]),
        high=np.array([level.test_high for level in info.levels]),
    )
    rings = Series(
        np.array([member.test_accuracy for _, member in inside]),
        theme.LIGHT.slate,
        [_level_words(member) for _, member in inside],
        [info.levels[row].level for row, _ in inside],
        rows=[row for row, _ in inside],
        name="member of an ensemble",
        symbol="circle-open",
    )
    low = min([level.test_low for level in info.levels] + [*accuracies, *rings.values])
    high = max([level.test_high for level in info.levels] + [*accuracies, *rings.values])
    ring = " A ring is one member of an ensemble by itself." if inside else ""
    titles = (textwrap.wrap(f"{level.level}. {level.title or level.model}", LINE) for level in info.levels)
    return RowChart(
        ["\n".join(lines) for lines in titles],
        (rings, whole) if inside else (whole,),
        "Test accuracy and 95 % interval",
        # From a round 5 % below the lowest point to a little above the highest, at most a little over 100 %.
        limits=(max(0.0, np.floor(low * 20) / 20) - 0.005, min(1.005, high + 0.05 * max(high - low, 0.02))),
        texts=tuple(map(percent, accuracies)),
        height=150 + ROW * len(info.levels),
        inches=0.75 + 0.36 * max(len(info.levels), 2),
        note=f"A line is the 95 % interval of the accuracy.{ring}",
    )


def _level_words(level: Level) -> str:
    lines = [f"<b>{plotly_text(level.title)}</b>"] if level.title else []
    lines += [plotly_text(level.model), f"{percent(level.test_accuracy)} ({interval(level.test_low, level.test_high)})"]
    if level.change is not None:
        lines.append(f"{points(level.change)} against the level before")
    return "<br>".join(lines)


FLIPPED = "Images that flipped"
CHANGES = FigureEntry("per_class_change", "Change of each class", "Classes", "classes", rows=changes)
FIXED = FigureEntry("fixed", "Fixed: A was wrong, B is right", FLIPPED, "fixed", "grid", grid=flips_grid)
BROKEN = FigureEntry("broken", "Broken: A was right, B is wrong", FLIPPED, "broken", "grid", grid=flips_grid)
LEVELS = FigureEntry("levels", "Accuracy of each level", "Levels", "levels", rows=levels)
