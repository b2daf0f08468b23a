"""Which right, and which wrong, predictions is the model surest of?"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd

from lucidate.analysis.formatting import among, count, listed, percent
from lucidate.analysis.tiles import Tiles, pick, ranked
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
        kind, shown = "right" if self.correct else "wrong", len(self.tiles)
        if not self.pool:
            return f"There is no {kind} prediction."
        least = f"at {percent(float(self.tiles.confidence.min()))} or more"
        if shown == self.pool:
            what = f"{among(self.pool, f'{kind} prediction')}, surest first, {least}".capitalize()
        elif self.widened:
            asked = ceil(self.fraction * self.pool)
            what = (
                f"The {shown} surest of {count(self.pool, f'{kind} prediction')}, {least} "
                f"({100 * self.fraction:g} % would be {asked})"
            )
        else:
            share = f"{100 * self.fraction:g} % of {count(self.pool, f'{kind} prediction')}"
            what = f"The surest {share}: {count(shown, 'image')}, {least}"
        if not self.correct:
            return f"{what}. Look for wrong labels and for images that show two classes."
        labels, counts = np.unique(self.tiles.labels, return_counts=True)
        most = [self.tiles.class_names[label] for label in labels[counts == counts.max()]]
        if len(most) > 2:
            return f"{what}; no class stands out."
        verb, each = ("is", "") if len(most) == 1 else ("are", " each")
        return f"{what}; {listed(most)} {verb} the most common ({counts.max()} of {shown}{each})."

    def frame(self) -> pd.DataFrame:
        """One row an image."""
        return self.tiles.frame()


def most_confident(predictions: Predictions, *, correct: bool, fraction: float = 0.01) -> MostConfident:
    """The surest `fraction` of the right or of the wrong predictions, at least 12 where there are as many."""
    pool = np.flatnonzero(predictions.correct == correct)
    shown = min(len(pool), max(MINIMUM, ceil(fraction * len(pool))))
    rows = ranked(predictions, pool, by=-predictions.confidence)[:shown]
    return MostConfident(correct, fraction, len(pool), pick(predictions, rows))
