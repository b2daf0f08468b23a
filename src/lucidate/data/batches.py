"""Packed store → batches. Order and augmentation are functions of (seed, epoch, step): there is no loader state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lucidate.core.recipe import AugmentRecipe
from lucidate.data.augment import augment
from lucidate.data.preprocess import Preprocess

SIDES = 2**31  # keeps the seed of alternating flips apart from that of any epoch's order


def derived_seed(seed: int, *path: int) -> int:
    """A seed of 63 bits for one place in a run, e.g. (seed, epoch, step); unrelated for neighbouring places."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_for(seed: int, *path: int) -> torch.Generator:
    """A CPU generator seeded for one place in a run."""
    return torch.Generator().manual_seed(derived_seed(seed, *path))


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of some rows of a store, on a device.

    images: (N, S, S, 3) uint8, the whole store; only the batches' rows are read from it.
    labels: (N,) int64. rows: (M,) int64 into the store.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    preprocess: Preprocess
    batch_size: int
    device: torch.device

    def __len__(self) -> int:
        """Batches of a pass in order, the last one maybe smaller."""
        return -(-len(self.rows) // self.batch_size)

    @property
    def training_steps(self) -> int:
        """Batches of a shuffled pass. A last batch of a single image is left out: BatchNorm cannot use it."""
        return len(self) - (len(self.rows) % self.batch_size == 1)

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(normalized float32 images (B, 3, S, S), int64 labels (B,)) of every row once, as they stand."""
        for step in range(len(self)):
            yield self._load(self.rows[step * self.batch_size : (step + 1) * self.batch_size])

    def shuffled(
        self, seed: int, epoch: int, *, recipe: AugmentRecipe, flips: bool, first: int = 0
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """One training epoch from step `first` on: (step, (images, labels)), the rows in a new order, augmented.

        The same for the same (seed, epoch, step), wherever it starts.
        """
        order = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(self.rows)
        # Half of the images begin mirrored; each then alternates, so that two epochs show every image both ways.
        sides = np.random.default_rng(np.random.SeedSequence([seed, SIDES])).random(len(self.labels)) < 0.5
        for step in range(first, self.training_steps):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            images, labels = self._load(rows)
            turn = torch.from_numpy(sides[rows] ^ (epoch % 2 == 1))
            generator = generator_for(seed, epoch, step)
            yield step, (augment(images, generator, recipe=recipe, flips=flips, turn=turn), labels)

    def _load(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(self.images[rows]).to(self.device, non_blocking=True)
        labels = torch.from_numpy(self.labels[rows]).to(self.device, non_blocking=True)
        return self.preprocess.normalize(pixels), labels
