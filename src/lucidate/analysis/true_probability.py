"""How much probability does the true class get, class by class?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import percent
from lucidate.core.records import Predictions

SKEW = 0.1  # a median this far above the mean is worth a sentence


@dataclass(frozen=True, eq=False)
class TrueClassProbability:
    """mean, median: (K,) probability of the true class over images of class k, higher is better; NaN without images."""

    class_names: tuple[str, ...]
    mean: NDArray[np.float64]
    median: NDArray[np.float64]
    overall: float

    @property
    def headline(self) -> str:
        lowest, highest = int(np.nanargmin(self.mean)), int(np.nanargmax(self.mean))
        names = self.class_names
        if percent(self.mean[lowest]) == percent(self.mean[highest]):
            which = "Every class that has images" if np.isnan(self.mean).any() else "Every class"
            return f"{which} gets {percent(self.mean[lowest])} of the probability on its own images, on average."
        sentence = (
            f"On its own images {names[lowest]} gets {percent(self.mean[lowest])} of the probability on average, the "
            f"least; {names[highest]} gets {percent(self.mean[highest])}, the most"
        )
        if self.median[lowest] - self.mean[lowest] > SKEW:
            sentence += (
                f". The median for {names[lowest]} is {percent(self.median[lowest])}: "
                "most of its images do well and some fail badly"
            )
        return f"{sentence}."

    def frame(self) -> pd.DataFrame:
        """One row a class."""
        return pd.DataFrame({"class": self.class_names, "mean": self.mean, "median": self.median})


def true_class_probability(predictions: Predictions) -> TrueClassProbability:
    """Mean and median probability of the true class, per true class."""
    k = predictions.num_classes
    mean, median = np.full(k, np.nan), np.full(k, np.nan)
    for label in range(k):
        values = predictions.true_probability[predictions.labels == label]
        if values.size:
            mean[label], median[label] = values.mean(), np.median(values)
    return TrueClassProbability(predictions.class_names, mean, median, float(predictions.true_probability.mean()))
