"""Precision, recall and F1 of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analyze.confusion import confusion_matrix
from lucidate.analyze.wording import percent
from lucidate.core.records import Predictions


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """Arrays (K,) float64, shares, higher is better; 0 where undefined. support: (K,) int64 images of the class."""

    class_names: tuple[str, ...]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    accuracy: float

    @property
    def headline(self) -> str:
        present = np.flatnonzero(self.support)
        scores = self.f1[present]
        mean = f"Macro F1 is {percent(float(self.f1.mean()))}"
        if len(present) < len(self.f1):
            mean += f" over all classes and {percent(float(scores.mean()))} over the {len(present)} that have images"
        if scores.min() == scores.max():
            return f"{mean}, the same for each."
        worst = int(present[scores.argmin()])
        return (
            f"{mean}; {self.class_names[worst]} has the lowest, {percent(self.f1[worst])} "
            f"(precision {percent(self.precision[worst])}, recall {percent(self.recall[worst])})."
        )

    def frame(self) -> pd.DataFrame:
        """One row a class, then the plain (macro) and the support-weighted mean."""
        per_class = np.stack([self.precision, self.recall, self.f1], axis=1)
        means = [per_class.mean(axis=0), np.average(per_class, axis=0, weights=self.support)]
        total = int(self.support.sum())
        frame = pd.DataFrame(np.vstack([per_class, *means]), columns=["precision", "recall", "f1"])
        frame.insert(0, "class", [*self.class_names, "macro average", "weighted average"])
        frame["support"] = [*self.support.tolist(), total, total]
        return frame


def classification_report(predictions: Predictions) -> ClassificationReport:
    """The figures that scikit-learn's report of the same name gives, undefined ones as 0."""
    counts = confusion_matrix(predictions).counts
    hits = np.diag(counts).astype(np.float64)
    predicted, support = counts.sum(axis=0), counts.sum(axis=1)
    return ClassificationReport(
        class_names=predictions.class_names,
        precision=hits / np.maximum(predicted, 1),
        recall=hits / np.maximum(support, 1),
        f1=2 * hits / np.maximum(predicted + support, 1),
        support=support,
        accuracy=predictions.accuracy,
    )
