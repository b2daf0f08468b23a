"""Which class is taken for which, and which pairs most often?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import among, count, percent
from lucidate.analysis.statistics import shares
from lucidate.core.records import Predictions

ALL_PAIRS = 100  # classes up to which a table lists the pairs that never occur too


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """counts: (K, K) int64; row = true class, column = predicted class."""

    class_names: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def normalized(self) -> NDArray[np.float64]:
        """Rows as shares of their true class, (K, K) float64; the row of a class without images is NaN."""
        return shares(self.counts, self.counts.sum(axis=1, keepdims=True))

    @property
    def headline(self) -> str:
        errors = self.counts - np.diag(np.diag(self.counts))
        if not errors.any():
            number = int(self.counts.sum())
            return f"Nothing is confused: {among(number, 'image')} {'is' if number == 1 else 'are'} right."
        true, predicted = np.unravel_index(int(errors.argmax()), errors.shape)
        total, ties = int(self.counts[true].sum()), int((errors == errors.max()).sum())
        pair = f"{self.class_names[true]} → {self.class_names[predicted]}"
        often = f"{count(int(errors.max()))} of {count(total, 'image')} of {self.class_names[true]}"
        if ties > 1:
            return f"No pair of classes stands out: {pair} is one of {ties} that are confused most, {often}."
        return f"{pair} is the most frequent confusion: {often} ({percent(errors.max() / total)})."

    def frame(self) -> pd.DataFrame:
        """One row a pair of classes: count, and share of the true class. Beyond 100 classes, only pairs that occur."""
        names = np.array(self.class_names)
        listed = self.counts >= (1 if len(names) > ALL_PAIRS else 0)
        true, predicted = np.nonzero(listed)
        classes = {"true_class": names[true], "predicted_class": names[predicted]}
        shares = {"count": self.counts[listed], "share_of_true_class": self.normalized[listed]}
        return pd.DataFrame({**classes, **shares})


def confusion_matrix(predictions: Predictions) -> ConfusionMatrix:
    """Count every pair of true and predicted class."""
    k = predictions.num_classes
    pairs = np.bincount(predictions.labels * k + predictions.predicted, minlength=k * k)
    return ConfusionMatrix(predictions.class_names, pairs.reshape(k, k).astype(np.int64))


@dataclass(frozen=True, eq=False)
class TopConfusions:
    """The most frequent wrong answers of each class, classes in order, most frequent first.

    true, predicted: (R,) int64 class indices. counts: (R,) int64. totals: (K,) int64 images of the class.
    errors: all wrong predictions, listed or not. pair: the two classes most often mixed up, either way;
    pair_count: how often; pair_ties: how many pairs are mixed up that often.
    """

    class_names: tuple[str, ...]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    counts: NDArray[np.int64]
    totals: NDArray[np.int64]
    errors: int
    pair: tuple[int, int]
    pair_count: int
    pair_ties: int

    @property
    def shares(self) -> NDArray[np.float64]:
        """(R,) counts as shares of the true class."""
        return self.counts / np.maximum(self.totals[self.true], 1)

    @property
    def headline(self) -> str:
        if not self.errors:
            return "No class is taken for another."
        a, b = self.pair
        both = f"{self.class_names[a]} and {self.class_names[b]}"
        often = f"{count(self.pair_count)} of {count(self.errors, 'error')} ({percent(self.pair_count / self.errors)})"
        if self.pair_ties > 1:
            return f"No two classes stand out: {both} are one of {self.pair_ties} pairs mixed up most, {often}."
        return f"{both} are mixed up most, both ways together: {often}."

    def frame(self) -> pd.DataFrame:
        """One row a listed pair."""
        names = np.array(self.class_names)
        classes = {"true_class": names[self.true], "predicted_class": names[self.predicted]}
        return pd.DataFrame({**classes, "count": self.counts, "share_of_true_class": self.shares})


def top_confusions(predictions: Predictions, *, per_class: int = 3) -> TopConfusions:
    """The `per_class` most frequent wrong answers of every class that has any."""
    counts = confusion_matrix(predictions).counts
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=1, kind="stable")[:, :per_class]
    true = np.repeat(np.arange(len(counts)), order.shape[1])
    predicted = order.ravel()
    listed = wrong[true, predicted] > 0
    true, predicted = true[listed], predicted[listed]
    both = np.triu(wrong + wrong.T)
    a, b = np.unravel_index(int(both.argmax()), both.shape)
    return TopConfusions(
        class_names=predictions.class_names,
        true=true,
        predicted=predicted,
        counts=wrong[true, predicted],
        totals=counts.sum(axis=1),
        errors=int(wrong.sum()),
        pair=(int(a), int(b)),
        pair_count=int(both[a, b]),
        pair_ties=int((both == both[a, b]).sum()),
    )
