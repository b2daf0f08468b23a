"""Which right, and which wrong, predictions is the model surest of?"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd

from lucidate.analyze.tiles import Tiles, pick, ranked
from lucidate.analyze.wording import count, percent
from lucidate.core.records import Predictions

MINIMUM = 12  # 1 % of a small set is an image or two: too few to see anything in


@dataclass(frozen=True, eq=False)
class MostConfident:
    """The surest of the right (correct=True) or wrong predictions, surest first.

    pool: how many right (or wrong) predictions there are. fraction: the share asked for; where it comes to fewer
    than 12 images, `tiles` holds the 12 surest (or all there are) and `widened` is true.
    """

    correct: bool
    fraction: float
    pool: int
    tiles: Tiles

    @property
    def widened(self) -> bool:
        return len(self.tiles) > ceil(self.fraction * self.pool)

    @property
    def headline(self) -> str:
        kind = "right" if self.correct else "wrong"
        if not self.pool:
            return f"There is no {kind} prediction."
        least = percent(float(self.tiles.confidence.min()))
        share = f"{self.fraction:.0%} of {count(self.pool, f'{kind} prediction')}"
        what = (
            f"{share} would be {ceil(self.fraction * self.pool)}, so the {len(self.tiles)} surest are shown"
            if self.widened
            else f"The surest {share}: {count(len(self.tiles), 'image')}"
        )
        if self.correct:
            labels, counts = np.unique(self.tiles.labels, return_counts=True)
            top = int(counts.argmax())
            return (
                f"{what}, all at {least} or more; {self.tiles.class_names[labels[top]]} is the most common "
                f"({counts[top]} of {len(self.tiles)})."
            )
        return f"{what}, all at {least} or more: look for wrong labels and for images that show two classes."

    def frame(self) -> pd.DataFrame:
        """One row an image."""
        return self.tiles.frame()


def most_confident(predictions: Predictions, *, correct: bool, fraction: float = 0.01) -> MostConfident:
    """The surest `fraction` of the right or of the wrong predictions, at least 12 where there are as many."""
    pool = np.flatnonzero(predictions.correct == correct)
    shown = min(len(pool), max(MINIMUM, ceil(fraction * len(pool))))
    rows = ranked(predictions, pool, by=-predictions.confidence)[:shown]
    return MostConfident(correct, fraction, len(pool), pick(predictions, rows))
