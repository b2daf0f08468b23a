"""What do the errors look like, as they come?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lucidate.analyze.tiles import Tiles, pick
from lucidate.analyze.wording import count, percent
from lucidate.core.records import Predictions


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
        sample = "all of them" if len(self.tiles) == self.pool else f"a random {len(self.tiles)} of them"
        second = float((self.tiles.true_probability > 0.25).mean())
        return (
            f"{count(self.pool)} of {count(self.images, 'image')} are misclassified "
            f"({percent(self.pool / self.images)}); here {'is' if self.pool == 1 else 'are'} {sample}. "
            f"In {percent(second)} of those shown the true class still got over 25 %."
        )

    def frame(self) -> pd.DataFrame:
        """One row an image."""
        return self.tiles.frame()


def misclassified(predictions: Predictions, *, shown: int = 100, seed: int = 0) -> Misclassified:
    """A random `shown` of the wrong predictions, the same for the same seed."""
    pool = np.flatnonzero(~predictions.correct)
    rows = np.random.default_rng(seed).permutation(pool)[:shown]
    order = np.lexsort((predictions.ids[rows], predictions.predicted[rows], predictions.labels[rows]))
    return Misclassified(len(pool), len(predictions), pick(predictions, rows[order]))
