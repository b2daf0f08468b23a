"""Small stand-ins: a two-layer net, a data set that it can learn, random predictions, a reporter that listens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lucidate.core.records import Predictions
from lucidate.data.batches import Batches
from lucidate.data.preprocess import Preprocess

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class TwoLayers(nn.Module):
    """Mean color → hidden layer with dropout → logits."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images.mean(dim=(2, 3)))
        return logits


def colored_images(count: int = 90, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(N, 8, 8, 3) images whose brightest channel is their class of three, under noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = generator.integers(0, 120, (count, 8, 8, 3))
    images[np.arange(count), :, :, labels] += 100
    return images.astype(np.uint8), labels.astype(np.int64)


def colored_batches(rows: Sequence[int] | NDArray[np.int64], *, batch_size: int = 16) -> Batches:
    """Batches of those images."""
    images, labels = colored_images()
    preprocess = Preprocess(8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Batches(images, labels, np.asarray(rows), preprocess, batch_size, torch.device("cpu"))


def random_predictions(
    count: int = 500, num_classes: int = 10, *, seed: int = 0, skill: float = 2.0, split: str = "test"
) -> Predictions:
    """Predictions that are right the more often, the higher `skill` is; infinity never errs."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, count)
    logits = generator.normal(size=(count, num_classes))
    logits[np.arange(count), labels] += min(skill, 50.0)
    names = NAMES[:num_classes] if num_classes <= 10 else tuple(f"class {k}" for k in range(num_classes))
    return Predictions(
        ids=np.array([f"{split}/{row:05d}" for row in range(count)]),
        index=np.arange(count),
        labels=labels.astype(np.int64),
        logits=logits.astype(np.float32),
        class_names=names,
        dataset="fake",
        split=split,
        model="two_layers",
    )


class Listener:
    """A reporter that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.advanced: list[tuple[str, int, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        self.advanced.append((task, done, total))
