"""How good is the model, in one line; and how did accuracy and loss go while it trained?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from lucidate.analysis.formatting import images, interval, percent
from lucidate.analysis.statistics import share_interval
from lucidate.core.records import History, Predictions


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
        sentence = (
            f"{percent(self.accuracy)} of {images(self.images, self.split)} are right "
            f"({interval(self.low, self.high)}); mean confidence is {percent(self.mean_confidence)}."
        )
        if self.beats_majority:
            return sentence
        than = "No better than" if self.accuracy <= self.majority_accuracy else "By no more than chance better than"
        return (
            f"{sentence} {than} always answering {self.majority_class}, the most frequent class, which is right for "
            f"{percent(self.majority_accuracy)}."
        )

    def frame(self) -> pd.DataFrame:
        """One row."""
        derived = {"overconfidence": self.overconfidence, "beats_majority": self.beats_majority}
        return pd.DataFrame([{**vars(self), **derived}])


def summary(predictions: Predictions) -> Summary:
    """Accuracy, its interval, the mean confidence and the majority-class baseline of a table of predictions."""
    low, high = share_interval(predictions.accuracy, len(predictions))
    sizes = np.bincount(predictions.labels, minlength=predictions.num_classes)
    return Summary(
        split=predictions.split,
        images=len(predictions),
        errors=int((~predictions.correct).sum()),
        accuracy=predictions.accuracy,
        low=low,
        high=high,
        mean_confidence=float(predictions.confidence.mean()),
        majority_class=predictions.class_names[int(sizes.argmax())],
        majority_accuracy=float(sizes.max() / len(predictions)),
    )


@dataclass(frozen=True)
class TrainingCurve:
    """One measure over epochs 1 to E, on training and validation images.

    accuracy: shares, higher is better. loss: mean cross-entropy in nats, lower is better. Training values are
    means over the epoch, under augmentation and dropout, so they may lie below the validation values.
    """

    measure: Literal["accuracy", "loss"]
    train: tuple[float, ...]
    validation: tuple[float, ...]

    @property
    def best_epoch(self) -> int:
        """Epoch (from 1) of the best validation value; the first of equals."""
        values = np.array(self.validation)
        return int(values.argmax() if self.measure == "accuracy" else values.argmin()) + 1

    @property
    def best(self) -> float:
        return self.validation[self.best_epoch - 1]

    @property
    def gap(self) -> float:
        """How much better training is than validation at the best epoch; what grows with epochs is overfitting."""
        gap = self.train[self.best_epoch - 1] - self.validation[self.best_epoch - 1]
        return gap if self.measure == "accuracy" else -gap

    @property
    def headline(self) -> str:
        accuracy = self.measure == "accuracy"
        best = percent(self.best) if accuracy else f"{self.best:.3f} nats"
        size = f"{abs(100 * self.gap):.1f} percentage points" if accuracy else f"{abs(self.gap):.3f} nats"
        relation = f"{size} {'higher' if (self.gap > 0) == accuracy else 'lower'}" if self.gap else "the same"
        epoch = f"epoch {self.best_epoch} of {len(self.train)}"
        return f"Validation {self.measure} is best at {epoch}: {best}; training {self.measure} there is {relation}."

    def frame(self) -> pd.DataFrame:
        """One row an epoch."""
        epochs = range(1, len(self.train) + 1)
        return pd.DataFrame({"epoch": epochs, "train": self.train, "validation": self.validation})


def accuracy_curve(history: History) -> TrainingCurve:
    """Accuracy by epoch."""
    return TrainingCurve("accuracy", history.accuracy, history.val_accuracy)


def loss_curve(history: History) -> TrainingCurve:
    """Cross-entropy by epoch."""
    return TrainingCurve("loss", history.loss, history.val_loss)
