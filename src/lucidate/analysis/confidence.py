"""Is the model less sure when it is wrong?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import count, percent
from lucidate.core.records import Predictions

SURE = 0.9  # a prediction at or above this confidence is one that a user would act on


@dataclass(frozen=True, eq=False)
class ConfidenceHistogram:
    """Confidence (probability of the predicted class) of right and of wrong predictions.

    edges: (B + 1,) from 0 to 1; a value on an edge belongs to the bin above it, 1.0 to the last bin.
    right, wrong: (B,) int64 counts. Means are NaN where there are none.
    """

    edges: NDArray[np.float64]
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]
    mean_right: float
    mean_wrong: float
    sure_right: int
    sure_wrong: int

    @property
    def headline(self) -> str:
        rights, wrongs = int(self.right.sum()), int(self.wrong.sum())
        if not wrongs:
            return f"There is no wrong prediction; the right ones are {percent(self.mean_right)} sure on average."
        sure = self.sure_right + self.sure_wrong
        means = f"Wrong predictions are {percent(self.mean_wrong)} sure on average"
        if rights:
            means += f", right ones {percent(self.mean_right)}"
        if not sure:
            return f"{means}; no prediction reaches {100 * SURE:.0f} % confidence."
        verb = "is" if self.sure_wrong == 1 else "are"
        return (
            f"{means}; of {count(sure, 'prediction')} at {100 * SURE:.0f} % confidence or more, "
            f"{count(self.sure_wrong) if self.sure_wrong else 'none'} {verb} wrong."
        )

    def frame(self) -> pd.DataFrame:
        """One row a bin."""
        return pd.DataFrame({"from": self.edges[:-1], "to": self.edges[1:], "right": self.right, "wrong": self.wrong})


def confidence_histogram(predictions: Predictions, *, bins: int = 20) -> ConfidenceHistogram:
    """Count confidences of right and wrong predictions in equal bins over [0, 1]."""
    edges = np.linspace(0, 1, bins + 1)
    right = predictions.confidence[predictions.correct]
    wrong = predictions.confidence[~predictions.correct]
    return ConfidenceHistogram(
        edges=edges,
        right=np.histogram(right, edges)[0],
        wrong=np.histogram(wrong, edges)[0],
        mean_right=float(right.mean()) if right.size else float("nan"),
        mean_wrong=float(wrong.mean()) if wrong.size else float("nan"),
        sure_right=int((right >= SURE).sum()),
        sure_wrong=int((wrong >= SURE).sum()),
    )
