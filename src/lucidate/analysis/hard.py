"""Which right answers were closest to being wrong?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lucidate.analysis.formatting import among, count, percent
from lucidate.analysis.tiles import Tiles, pick, ranked
from lucidate.core.records import Predictions


@dataclass(frozen=True, eq=False)
class HardButCorrect:
    """Right predictions with the lowest probability of the true class, lowest first."""

    pool: int
    below_half: int
    tiles: Tiles

    @property
    def headline(self) -> str:
        if not self.pool:
            return "There is no right prediction."
        lowest = percent(float(self.tiles.true_probability.min()))
        if not self.below_half:
            return f"{among(self.pool, 'right answer')} gave the true class at least {lowest}.".capitalize()
        return (
            f"{count(self.below_half)} of {count(self.pool, 'right answer')} had less than 50 % for the true class; "
            f"the lowest had {lowest}. A small change to such an image can turn the answer."
        )

    def frame(self) -> pd.DataFrame:
        """One row an image."""
        return self.tiles.frame()


def hard_but_correct(predictions: Predictions, *, shown: int = 60) -> HardButCorrect:
    """The `shown` right predictions that were least sure of the true class."""
    pool = np.flatnonzero(predictions.correct)
    rows = ranked(predictions, pool, by=predictions.true_probability)[:shown]
    below = int((predictions.true_probability[pool] < 0.5).sum())
    return HardButCorrect(len(pool), below, pick(predictions, rows))
