"""How much probability does the true class get, class by class?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analyze.wording import percent
from lucidate.core.records import Predictions


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
        return (
            f"On average {self.class_names[lowest]} gets {percent(self.mean[lowest])} of the probability on its own "
            f"images (median {percent(self.median[lowest])}), {self.class_names[highest]} "
            f"{percent(self.mean[highest])}; a mean far below its median comes from few images that fail badly."
        )

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
