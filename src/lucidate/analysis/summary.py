"""How good is the model, in one line?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lucidate.analysis.formatting import images, interval, percent
from lucidate.analysis.statistics import wilson_interval
from lucidate.core.records import Predictions


@dataclass(frozen=True)
class Summary:
    """Accuracy (share, higher is better) with its 95 % Wilson interval, and mean confidence beside it.

    majority_class: the most frequent class of these images, the first of equals; majority_accuracy: the share that
    always answering with it gets right.
    """

    split: str
    images: int
    errors: int
    accuracy: float
    low: float
    high: float
    mean_confidence: float
    majority_class: str
    majority_accuracy: float

    @property
    def overconfidence(self) -> float:
        """Mean confidence less accuracy: above 0 the model claims more than it keeps; 0 is best."""
        return self.mean_confidence - self.accuracy

    @property
    def beats_majority(self) -> bool:
        """Whether the accuracy's whole interval lies above what always naming the most frequent class gets right."""
        return self.low > self.majority_accuracy

    @property
    def headline(self) -> str:
        return (
            f"{percent(self.accuracy)} of {images(self.images, self.split)} are right "
            f"({interval(self.low, self.high)}); mean confidence is {percent(self.mean_confidence)}."
            f"{'' if self.beats_majority else self._no_better}"
        )

    @property
    def _no_better(self) -> str:
        """The sentence on a model that a constant answer rivals."""
        than = "No better than" if self.accuracy <= self.majority_accuracy else "By no more than chance better than"
        return (
            f" {than} always answering {self.majority_class}, the most frequent class, which is right for "
            f"{percent(self.majority_accuracy)}."
        )

    def frame(self) -> pd.DataFrame:
        """One row."""
        derived = {"overconfidence": self.overconfidence, "beats_majority": self.beats_majority}
        return pd.DataFrame([{**vars(self), **derived}])


def summary(predictions: Predictions) -> Summary:
    """Accuracy, its interval, the mean confidence and the majority-class baseline of a table of predictions."""
    right = int(predictions.correct.sum())
    low, high = wilson_interval(right, len(predictions))
    sizes = np.bincount(predictions.labels, minlength=predictions.num_classes)
    return Summary(
        split=predictions.split,
        images=len(predictions),
        errors=len(predictions) - right,
        accuracy=predictions.accuracy,
        low=float(low),
        high=float(high),
        mean_confidence=float(predictions.confidence.mean()),
        majority_class=predictions.class_names[int(sizes.argmax())],
        majority_accuracy=float(sizes.max() / len(predictions)),
    )
