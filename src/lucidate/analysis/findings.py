"""Every question asked of one table of predictions, answered and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucidate.analysis.class_distribution import ClassDistribution, class_distribution
from lucidate.analysis.classification_report import ClassificationReport, classification_report
from lucidate.analysis.confidence import ConfidenceHistogram, confidence_histogram
from lucidate.analysis.confusion import ConfusionMatrix, confusion_matrix
from lucidate.analysis.curves import TrainingCurve, accuracy_curve, loss_curve
from lucidate.analysis.examples import ExamplesPerClass, examples_per_class
from lucidate.analysis.hard import HardButCorrect, hard_but_correct
from lucidate.analysis.misclassified import Misclassified, misclassified
from lucidate.analysis.most_confident import MostConfident, most_confident
from lucidate.analysis.per_class import PerClassAccuracy, per_class_accuracy
from lucidate.analysis.summary import Summary, summary
from lucidate.analysis.top_confusions import TopConfusions, top_confusions
from lucidate.analysis.true_probability import TrueClassProbability, true_class_probability
from lucidate.core.atomic import atomic_write
from lucidate.core.records import History, Predictions, jsonable


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images by split, for the questions that look at data rather than at predictions.

    Keys: split names in display order. ids: (N,) str; index: (N,) int64 rows of the packed store;
    labels: (N,) int64.
    """

    ids: Mapping[str, NDArray[np.str_]]
    index: Mapping[str, NDArray[np.int64]]
    labels: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Findings:
    """One Info a question; the curves are None for predictions that came without a training history."""

    summary: Summary
    class_distribution: ClassDistribution
    examples_per_class: ExamplesPerClass
    accuracy_curve: TrainingCurve | None
    loss_curve: TrainingCurve | None
    confusion_matrix: ConfusionMatrix
    classification_report: ClassificationReport
    per_class_accuracy: PerClassAccuracy
    true_class_probability: TrueClassProbability
    confidence: ConfidenceHistogram
    most_confident_right: MostConfident
    most_confident_wrong: MostConfident
    hard_but_correct: HardButCorrect
    misclassified: Misclassified
    top_confusions: TopConfusions

    def save(self, folder: Path) -> None:
        """Write `<question>.json` for every question: the record's fields and its headline."""
        for field in fields(self):
            info = getattr(self, field.name)
            if info is not None:
                content = {"headline": info.headline, **jsonable(info)}
                atomic_write(folder / f"{field.name}.json", json.dumps(content, indent=1).encode())


def analyze(
    predictions: Predictions, *, history: History | None = None, images: Images | None = None, seed: int = 0
) -> Findings:
    """Answer every question about one table of predictions.

    images: the data set by split; without it, the predicted images stand for the data set.
    seed: of the random samples shown.
    """
    if images is None:
        split = predictions.split
        images = Images({split: predictions.ids}, {split: predictions.index}, {split: predictions.labels})
    shown = next(iter(images.labels))  # the first split: training images where there are any
    return Findings(
        summary=summary(predictions),
        class_distribution=class_distribution(images.labels, predictions.class_names),
        examples_per_class=examples_per_class(
            images.ids[shown],
            images.index[shown],
            images.labels[shown],
            predictions.class_names,
            split=shown,
            seed=seed,
        ),
        accuracy_curve=accuracy_curve(history) if history else None,
        loss_curve=loss_curve(history) if history else None,
        confusion_matrix=confusion_matrix(predictions),
        classification_report=classification_report(predictions),
        per_class_accuracy=per_class_accuracy(predictions),
        true_class_probability=true_class_probability(predictions),
        confidence=confidence_histogram(predictions),
        most_confident_right=most_confident(predictions, correct=True),
        most_confident_wrong=most_confident(predictions, correct=False),
        hard_but_correct=hard_but_correct(predictions),
        misclassified=misclassified(predictions, seed=seed),
        top_confusions=top_confusions(predictions),
    )
