"""What do the errors look like, as they come?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lucidate.analysis.formatting import count, percent
from lucidate.analysis.tiles import Tiles, pick
from lucidate.core.records import Predictions

NEAR = 0.25  # probability of the true class at which an error was not far from right


@dataclass(frozen=True, eq=False)
class Misclassified:
    """A seeded random sample of the wrong predictions, by true then predicted class: what errors usually are."""

    pool: int
    images: int
    tiles: Tiles

    @property
    def headline(self) -> str:
        if not self.pool:
            return f"None of {count(self.images, 'image')} is misclassified."
        verb, shown = "is" if self.pool == 1 else "are", len(self.tiles)
        errors = f"{count(self.pool)} of {count(self.images, 'image')} {verb} misclassified"
        sample = "" if shown == self.pool else f"; here is a random sample of {shown}"
        near = int((self.tiles.true_probability > NEAR).sum())
        second = f"For {count(near)} of those shown" if shown > 1 and near else ""
        if near == shown:
            second = "For it" if shown == 1 else "For each"
        tail = f" {second} the true class still got more than {100 * NEAR:.0f} %." if second else ""
        return f"{errors} ({percent(self.pool / self.images)}){sample}.{tail}"

    def frame(self) -> pd.DataFrame:
        """One row an image."""
        return self.tiles.frame()


def misclassified(predictions: Predictions, *, shown: int = 100, seed: int = 0) -> Misclassified:
    """A random `shown` of the wrong predictions, the same for the same seed."""
    pool = np.flatnonzero(~predictions.correct)
    rows = np.random.default_rng(seed).permutation(pool)[:shown]
    order = np.lexsort((predictions.ids[rows], predictions.predicted[rows], predictions.labels[rows]))
    return Misclassified(len(pool), len(predictions), pick(predictions, rows[order]))
