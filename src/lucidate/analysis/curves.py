"""How did accuracy and loss go while the model trained?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from lucidate.analysis.formatting import percent
from lucidate.core.records import History


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
