"""How accurate is the model on each class, and how sure is that?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import images_of, interval, percent, without_images
from lucidate.analysis.intervals import wilson_interval
from lucidate.core.records import Predictions


@dataclass(frozen=True, eq=False)
class PerClassAccuracy:
    """Arrays (K,): right predictions and images (int64), accuracy (share) and its 95 % interval, NaN without images.

    split: of the images. overall: accuracy of all of them.
    """

    class_names: tuple[str, ...]
    correct: NDArray[np.int64]
    total: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    overall: float
    split: str

    @property
    def accuracy(self) -> NDArray[np.float64]:
        return np.divide(self.correct, self.total, out=np.full(len(self.total), np.nan), where=self.total > 0)

    @property
    def missing(self) -> list[str]:
        """Names of the classes without an image."""
        return [name for name, total in zip(self.class_names, self.total.tolist(), strict=True) if not total]

    @property
    def headline(self) -> str:
        without = without_images(self.missing, self.split)
        worst, best = int(np.nanargmin(self.accuracy)), int(np.nanargmax(self.accuracy))
        if self.accuracy[worst] == self.accuracy[best]:
            which = f"Every class that has {images_of(self.split)}" if without else "Every class"
            return f"{which} has the same accuracy, {percent(self.accuracy[worst])}.{without}"
        apart = "their intervals are apart"
        if self.high[worst] >= self.low[best]:
            apart = "their intervals overlap: more images could change the order"
        return (
            f"{self.class_names[worst]} is the hardest class: {percent(self.accuracy[worst])} "
            f"({interval(self.low[worst], self.high[worst])}) against {percent(self.accuracy[best])} for "
            f"{self.class_names[best]}; {apart}.{without}"
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
    """Accuracy of each class with Wilson's 95 % interval; a class without images has neither."""
    k = predictions.num_classes
    total = np.bincount(predictions.labels, minlength=k)
    correct = np.bincount(predictions.labels[predictions.correct], minlength=k)
    low, high = (np.where(total > 0, end, np.nan) for end in wilson_interval(correct, total))
    return PerClassAccuracy(predictions.class_names, correct, total, low, high, predictions.accuracy, predictions.split)
