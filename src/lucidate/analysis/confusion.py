"""Which classes are taken for which?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import among, count, percent
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
        totals = self.counts.sum(axis=1, keepdims=True)
        shares: NDArray[np.float64] = np.where(totals > 0, self.counts / np.maximum(totals, 1), np.nan)
        return shares

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
        return pd.DataFrame(
            {
                "true_class": names[true],
                "predicted_class": names[predicted],
                "count": self.counts[listed],
                "share_of_true_class": self.normalized[listed],
            }
        )


def confusion_matrix(predictions: Predictions) -> ConfusionMatrix:
    """Count every pair of true and predicted class."""
    k = predictions.num_classes
    pairs = np.bincount(predictions.labels * k + predictions.predicted, minlength=k * k)
    return ConfusionMatrix(predictions.class_names, pairs.reshape(k, k).astype(np.int64))
