"""What did each level of the challenge buy?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lucidate.analysis.formatting import listed, p_value, points
from lucidate.analysis.statistics import LEVEL


@dataclass(frozen=True)
class Level:
    """One level's model and how well it does.

    level: 1 to 4. title: what the level adds. run: folder of its run, relative to that of the levels. model: in words.
    origin: how its weights began, "pretrained" or "from scratch". weights: where they came from. parameters: trainable.
    *_accuracy: shares from 0 to 1, with their 95 % Wilson intervals. change: test accuracy less that of the level
    before, and p: McNemar's exact p of the two on the same images; None for the first level. seconds: of training
    (of an ensemble, its members' together). images_per_second: shown in training, validation included in the time.
    members, best_member_test_accuracy: of an ensemble.
    """

    level: int
    title: str
    run: str
    model: str
    origin: str
    parameters: int
    val_images: int
    val_accuracy: float
    val_low: float
    val_high: float
    test_images: int
    test_accuracy: float
    test_low: float
    test_high: float
    change: float | None
    p: float | None
    seconds: float
    images_per_second: float
    members: tuple[Level, ...] = ()
    best_member_test_accuracy: float | None = None
    weights: str = ""


@dataclass(frozen=True)
class LevelsTable:
    """The levels in their order. notes: what a reader of the figures must know.

    best_p: McNemar's exact p of the level of the highest test accuracy against that of the second highest, on the same
    images; None where it is not known, and their intervals tell.
    """

    levels: tuple[Level, ...]
    notes: tuple[str, ...] = ()
    best_p: float | None = None

    @property
    def headline(self) -> str:
        first, last = self.levels[0], self.levels[-1]
        gain = points(last.test_accuracy - first.test_accuracy)
        changed = f"From level {first.level} to level {last.level} test accuracy changed by {gain}"
        return f"{changed}; {self._best}." if len(self.levels) > 1 else f"Level {first.level}: {self._of(first)}."

    @property
    def _best(self) -> str:
        """Which level is the best, where more than chance says so."""
        best, second, *_ = sorted(self.levels, key=lambda level: -level.test_accuracy)
        tied = [str(level.level) for level in self.levels if level.test_accuracy == best.test_accuracy]
        if len(tied) > 1:
            return f"levels {listed(tied)} tie at {self._of(best)}, so none is the best"
        clear = self.best_p < LEVEL if self.best_p is not None else best.test_low > second.test_high
        if clear:
            return f"level {best.level} is the best, {self._of(best)}"
        p = f" ({p_value(self.best_p)})" if self.best_p is not None else ""
        return (
            f"level {best.level} is the highest, {self._of(best)}, but not better than level {second.level} beyond "
            f"chance{p}"
        )

    def _of(self, level: Level) -> str:
        return f"{100 * level.test_accuracy:.1f}\N{NO-BREAK SPACE}%"

    def frame(self) -> pd.DataFrame:
        """A row a level, and one a member of an ensemble, whose `level` reads such as 4.1."""
        rows = []
        for level in self.levels:
            rows.append({**vars(level), "level": str(level.level)})
            rows += [
                {**vars(member), "level": f"{level.level}.{position}"}
                for position, member in enumerate(level.members, 1)
            ]
        return pd.DataFrame(rows).drop(columns=["members"])
