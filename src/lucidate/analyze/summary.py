"""How good is the model, in one line?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lucidate.analyze.intervals import wilson_interval
from lucidate.analyze.wording import images, interval, percent
from lucidate.core.records import Predictions


@dataclass(frozen=True)
class Summary:
    """Accuracy (share, higher is better) with its 95 % Wilson interval, and mean confidence beside it."""

    split: str
    images: int
    errors: int
    accuracy: float
    low: float
    high: float
    mean_confidence: float

    @property
    def overconfidence(self) -> float:
        """Mean confidence less accuracy: above 0 the model claims more than it keeps; 0 is best."""
        return self.mean_confidence - self.accuracy

    @property
    def headline(self) -> str:
        return (
            f"{percent(self.accuracy)} of {images(self.images, self.split)} are right "
            f"({interval(self.low, self.high)}); mean confidence is {percent(self.mean_confidence)}."
        )

    def frame(self) -> pd.DataFrame:
        """One row."""
        return pd.DataFrame([{**vars(self), "overconfidence": self.overconfidence}])


def summary(predictions: Predictions) -> Summary:
    """Accuracy, its interval and the mean confidence of a table of predictions."""
    right = int(predictions.correct.sum())
    low, high = wilson_interval(right, len(predictions))
    return Summary(
        split=predictions.split,
        images=len(predictions),
        errors=len(predictions) - right,
        accuracy=predictions.accuracy,
        low=float(low),
        high=float(high),
        mean_confidence=float(predictions.confidence.mean()),
    )
