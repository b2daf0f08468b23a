"""What did each level of the challenge buy?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lucidate.analyze.wording import points


@dataclass(frozen=True)
class Level:
    """One level's model and how well it does.

    level: 1 to 4. title: what the level adds. run: folder of its run, relative to that of the levels. model: in words.
    origin: where its weights began, "pretrained" or "from scratch". parameters: trainable ones.
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


@dataclass(frozen=True)
class LevelsTable:
    """The levels in their order. notes: what a reader of the figures must know."""

    levels: tuple[Level, ...]
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        first, last = self.levels[0], self.levels[-1]
        best = max(self.levels, key=lambda level: level.test_accuracy)
        gain = points(last.test_accuracy - first.test_accuracy)
        return (
            f"From level {first.level} to level {last.level} test accuracy changed by {gain}; "
            f"level {best.level} is the best, {100 * best.test_accuracy:.1f}\N{NO-BREAK SPACE}%."
        )

    def frame(self) -> pd.DataFrame:
        """A row a level, and one a member of an ensemble, whose `level` reads such as 4.1."""
        rows = []
        for level in self.levels:
            rows.append({**vars(level), "level": str(level.level)})
            rows += [
                {**vars(member), "level": f"{level.level}.{place}"} for place, member in enumerate(level.members, 1)
            ]
        return pd.DataFrame(rows).drop(columns=["members"])
