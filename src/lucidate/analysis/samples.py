"""Which images are worth a look: surest answers, right and wrong; those that just hold; a sample of mistakes?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import among, count, listed, percent
from lucidate.core.records import Predictions


@dataclass(frozen=True, eq=False)
class Tiles:
    """T images in display order.

    ids: (T,) str. index: (T,) int64, row in the packed store. labels, predicted: (T,) int64.
    confidence: (T,) probability of the predicted class. true_probability: (T,) probability of the true class.
    """

    ids: NDArray[np.str_]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    true_probability: NDArray[np.float64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def correct(self) -> NDArray[np.bool_]:
        return self.labels == self.predicted

    def take(self, rows: NDArray[np.int64]) -> Tiles:
        """The given ones of these images, in the given order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in TILE_ARRAYS})

    def frame(self) -> pd.DataFrame:
        """One row an image: id, true and predicted class, their probabilities."""
        names = np.array(self.class_names)
        answers = {"true_class": names[self.labels], "predicted_class": names[self.predicted]}
        shares = {"confidence": self.confidence, "true_class_probability": self.true_probability}
        return pd.DataFrame({"id": self.ids, **answers, **shares})


TILE_ARRAYS = ("ids", "index", "labels", "predicted", "confidence", "true_probability")


def pick(predictions: Predictions, rows: NDArray[np.int64]) -> Tiles:
    """The given rows of a table, in the given order."""
    arrays = {name: getattr(predictions, name)[rows] for name in TILE_ARRAYS}
    return Tiles(**arrays, class_names=predictions.class_names)


def ranked(predictions: Predictions, rows: NDArray[np.int64], *, by: NDArray[np.float64]) -> NDArray[np.int64]:
    """`rows` by ascending value of `by` (one value a row of the table); ties by id, so that order is stable."""
    return rows[np.lexsort((predictions.ids[rows], by[rows]))]


@dataclass(frozen=True, eq=False)
class Sample:
    """Images shown of a pool of so many."""

    pool: int
    tiles: Tiles

    def frame(self) -> pd.DataFrame:
        """One row an image."""
        return self.tiles.frame()


MINIMUM = 12  # 1 % of a small set is an image or two: too few to see anything in


@dataclass(frozen=True, eq=False)
class MostConfident(Sample):
    """The surest of the right (correct=True) or wrong predictions, surest first.

    pool: how many right (or wrong) predictions there are. fraction: the share asked for; where it comes to fewer
    than 12 images, `tiles` holds the 12 surest (or all there are) and `widened` is true.
    """

    correct: bool
    fraction: float

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
            would = f"{100 * self.fraction:g} % would be {ceil(self.fraction * self.pool)}"
            what = f"The {shown} surest of {count(self.pool, f'{kind} prediction')}, {least} ({would})"
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


def most_confident(predictions: Predictions, *, correct: bool, fraction: float = 0.01) -> MostConfident:
    """The surest `fraction` of the right or of the wrong predictions, at least 12 where there are as many."""
    pool = np.flatnonzero(predictions.correct == correct)
    shown = min(len(pool), max(MINIMUM, ceil(fraction * len(pool))))
    rows = ranked(predictions, pool, by=-predictions.confidence)[:shown]
    return MostConfident(len(pool), pick(predictions, rows), correct, fraction)


@dataclass(frozen=True, eq=False)
class HardButCorrect(Sample):
    """Right predictions with the lowest probability of the true class, lowest first."""

    below_half: int

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


def hard_but_correct(predictions: Predictions, *, shown: int = 60) -> HardButCorrect:
    """The `shown` right predictions that were least sure of the true class."""
    pool = np.flatnonzero(predictions.correct)
    rows = ranked(predictions, pool, by=predictions.true_probability)[:shown]
    below = int((predictions.true_probability[pool] < 0.5).sum())
    return HardButCorrect(len(pool), pick(predictions, rows), below)


NEAR = 0.25  # probability of the true class at which an error was not far from right


@dataclass(frozen=True, eq=False)
class Misclassified(Sample):
    """A seeded random sample of the wrong predictions, by true then predicted class: what errors usually are."""

    images: int

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


def misclassified(predictions: Predictions, *, shown: int = 100, seed: int = 0) -> Misclassified:
    """A random `shown` of the wrong predictions, the same for the same seed."""
    pool = np.flatnonzero(~predictions.correct)
    rows = np.random.default_rng(seed).permutation(pool)[:shown]
    order = np.lexsort((predictions.ids[rows], predictions.predicted[rows], predictions.labels[rows]))
    return Misclassified(len(pool), pick(predictions, rows[order]), len(predictions))
