"""How accurate is the model on each class, and how sure is that?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analyze.intervals import wilson_interval
from lucidate.analyze.wording import interval, percent
from lucidate.core.records import Predictions


@dataclass(frozen=True, eq=False)
class PerClassAccuracy:
    """Arrays (K,): right predictions and images (int64), accuracy (share, NaN without images), its 95 % interval."""

    class_names: tuple[str, ...]
    correct: NDArray[np.int64]
    total: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    overall: float

    @property
    def accuracy(self) -> NDArray[np.float64]:
        return np.divide(self.correct, self.total, out=np.full(len(self.total), np.nan), where=self.total > 0)

    @property
    def headline(self) -> str:
        worst, best = int(np.nanargmin(self.accuracy)), int(np.nanargmax(self.accuracy))
        if self.accuracy[worst] == self.accuracy[best]:
            return f"Every class has the same accuracy, {percent(self.accuracy[worst])}."
        apart = "their intervals are apart"
        if self.high[worst] >= self.low[best]:
            apart = "their intervals overlap: more images could change the order"
        return (
            f"{self.class_names[worst]} is the hardest class: {percent(self.accuracy[worst])} "
            f"({interval(self.low[worst], self.high[worst])}) against {percent(self.accuracy[best])} for "
            f"{self.class_names[best]}; {apart}."
        )

    def frame(self) -> pd.DataFrame:
        """One row a class."""
        return pd.DataFrame(
            {
                "class": self.class_names,
                "accuracy": self.accuracy,
                "low_95": self.low,
                "high_95": self.high,
                "correct": self.correct,
                "images": self.total,
            }
        )


def per_class_accuracy(predictions: Predictions) -> PerClassAccuracy:
    """Accuracy of each class with Wilson's 95 % interval."""
    k = predictions.num_classes
    total = np.bincount(predictions.labels, minlength=k)
    correct = np.bincount(predictions.labels[predictions.correct], minlength=k)
    low, high = wilson_interval(correct, total)
    return PerClassAccuracy(predictions.class_names, correct, total, low, high, predictions.accuracy)
