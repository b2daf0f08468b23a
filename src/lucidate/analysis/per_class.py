"""How well is each class recognized: its accuracy, its precision, recall and F1, the probability that it gets?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.confusion import confusion_matrix
from lucidate.analysis.formatting import images_of, interval, percent, without_images
from lucidate.analysis.statistics import shares, wilson_interval
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
        return shares(self.correct, self.total)

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
        accuracy = {"accuracy": self.accuracy, "low_95": self.low, "high_95": self.high}
        return pd.DataFrame({"class": self.class_names, **accuracy, "correct": self.correct, "images": self.total})


def per_class_accuracy(predictions: Predictions) -> PerClassAccuracy:
    """Accuracy of each class with Wilson's 95 % interval; a class without images has neither."""
    k = predictions.num_classes
    total = np.bincount(predictions.labels, minlength=k)
    correct = np.bincount(predictions.labels[predictions.correct], minlength=k)
    low, high = (np.where(total > 0, end, np.nan) for end in wilson_interval(correct, total))
    return PerClassAccuracy(predictions.class_names, correct, total, low, high, predictions.accuracy, predictions.split)


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
        median, skew = self.median[lowest], ""
        if median - self.mean[lowest] > SKEW:
            skew = (
                f" The median for {names[lowest]} is {percent(median)}: most of its images do well and some fail badly."
            )
        return (
            f"On its own images {names[lowest]} gets {percent(self.mean[lowest])} of the probability on average, the "
            f"least; {names[highest]} gets {percent(self.mean[highest])}, the most.{skew}"
        )

    def frame(self) -> pd.DataFrame:
        """One row a class."""
        return pd.DataFrame({"class": self.class_names, "mean": self.mean, "median": self.median})


def true_class_probability(predictions: Predictions) -> TrueClassProbability:
    """Mean and median probability of the true class, per true class."""
    own, (mean, median) = predictions.true_probability, np.full((2, predictions.num_classes), np.nan)
    for label in np.unique(predictions.labels):
        values = own[predictions.labels == label]
        mean[label], median[label] = values.mean(), np.median(values)
    return TrueClassProbability(predictions.class_names, mean, median, float(own.mean()))
