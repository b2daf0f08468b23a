"""Precision, recall and F1 of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.confusion import confusion_matrix
from lucidate.analysis.formatting import images_of, percent
from lucidate.core.records import Predictions


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """Arrays (K,) float64, shares, higher is better. support: (K,) int64 images of the class.

    Precision of a class that has images and is never predicted is 0. Of a class without images, recall and F1 are NaN,
    and so is precision if it is never predicted; means leave such a class out. split: of the images.
    """

    class_names: tuple[str, ...]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    accuracy: float
    split: str

    @property
    def means(self) -> NDArray[np.float64]:
        """(3,) plain (macro) means of precision, recall and F1 over the classes that have images."""
        return self._scores[self.support > 0].mean(axis=0)

    @property
    def headline(self) -> str:
        present = np.flatnonzero(self.support)
        scores = self.f1[present]
        mean = f"Macro F1 is {percent(float(self.means[2]))}"
        if len(present) < len(self.f1):
            mean += f" over the {len(present):,} of {len(self.f1):,} classes that have {images_of(self.split)}"
        if scores.min() == scores.max():
            return f"{mean}, the same for each."
        worst = int(present[scores.argmin()])
        return (
            f"{mean}; {self.class_names[worst]} has the lowest, {percent(self.f1[worst])} "
            f"(precision {percent(self.precision[worst])}, recall {percent(self.recall[worst])})."
        )

    def frame(self) -> pd.DataFrame:
        """One row a class, then the plain (macro) and the support-weighted mean."""
        per_class, present = self._scores, self.support > 0
        means = [self.means, np.average(per_class[present], axis=0, weights=self.support[present])]
        total = int(self.support.sum())
        frame = pd.DataFrame(np.vstack([per_class, *means]), columns=["precision", "recall", "f1"])
        frame.insert(0, "class", [*self.class_names, "macro average", "weighted average"])
        frame["support"] = [*self.support.tolist(), total, total]
        return frame

    @property
    def _scores(self) -> NDArray[np.float64]:
        """(K, 3) precision, recall, F1."""
        return np.stack([self.precision, self.recall, self.f1], axis=1)


def classification_report(predictions: Predictions) -> ClassificationReport:
    """The figures that scikit-learn's report of the same name gives, over the classes that have images."""
    counts = confusion_matrix(predictions).counts
    hits = np.diag(counts).astype(np.float64)
    predicted, support = counts.sum(axis=0), counts.sum(axis=1)
    absent = support == 0
    return ClassificationReport(
        class_names=predictions.class_names,
        precision=np.where(absent & (predicted == 0), np.nan, hits / np.maximum(predicted, 1)),
        recall=np.where(absent, np.nan, hits / np.maximum(support, 1)),
        f1=np.where(absent, np.nan, 2 * hits / np.maximum(predicted + support, 1)),
        support=support,
        accuracy=predictions.accuracy,
        split=predictions.split,
    )
