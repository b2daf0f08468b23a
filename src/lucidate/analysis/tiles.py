"""Single images picked from a table of predictions, with what the model said of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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

    def take(self, rows: NDArray[np.int64]) -> Tiles:
        """The given ones of these images, in the given order."""
        return Tiles(
            ids=self.ids[rows],
            index=self.index[rows],
            labels=self.labels[rows],
            predicted=self.predicted[rows],
            confidence=self.confidence[rows],
            true_probability=self.true_probability[rows],
            class_names=self.class_names,
        )

    def frame(self) -> pd.DataFrame:
        """One row an image: id, true and predicted class, their probabilities."""
        names = np.array(self.class_names)
        return pd.DataFrame(
            {
                "id": self.ids,
                "true_class": names[self.labels],
                "predicted_class": names[self.predicted],
                "confidence": self.confidence,
                "true_class_probability": self.true_probability,
            }
        )


def pick(predictions: Predictions, rows: NDArray[np.int64]) -> Tiles:
    """The given rows of a table, in the given order."""
    return Tiles(
        ids=predictions.ids,
        index=predictions.index,
        labels=predictions.labels,
        predicted=predictions.predicted,
        confidence=predictions.confidence,
        true_probability=predictions.true_probability,
        class_names=predictions.class_names,
    ).take(rows)


def ranked(predictions: Predictions, rows: NDArray[np.int64], *, by: NDArray[np.float64]) -> NDArray[np.int64]:
    """`rows` by ascending value of `by` (one value a row of the table); ties by id, so that order is stable."""
    return rows[np.lexsort((predictions.ids[rows], by[rows]))]
