"""Packed store → batches. Order and augmentation are functions of (seed, epoch, step): there is no loader state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lucidate.core.recipe import AugmentRecipe
from lucidate.data.augment import Draws, augment, mix
from lucidate.data.preprocess import Preprocess
from lucidate.data.store import read_rows
from lucidate.data.trivial_augment import trivial_augment

SIDES = 2**31  # keeps the seed of alternating flips apart from that of any epoch's order
DEVICE_SHARE = 0.5  # of an accelerator's free memory: what images may take; the rest is for the training


def derived_seed(seed: int, *path: int) -> int:
    """A seed of 63 bits for one point of a run, e.g. (seed, epoch, step); unrelated for neighbouring points."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_for(seed: int, *path: int) -> torch.Generator:
    """A CPU generator seeded for one point of a run."""
    return torch.Generator().manual_seed(derived_seed(seed, *path))


@dataclass(frozen=True, eq=False)
class Batch:
    """One training step's images on a device, or this process's part of them.

    images: (P, 3, S, S) float32, normalized, augmented. labels: (P,) int64. positions: (P,) int64, theirs in the
    batches' rows. whole: images of the step in all processes. share: weight of `labels` where images are mixed with
    their partners, else 1.
    """

    images: Tensor
    labels: Tensor
    positions: NDArray[np.int64]
    whole: int
    share: float = 1.0


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of some rows of a store, on a device.

    images: (N, S, S, 3) uint8, the whole store; only the batches' rows are read from it.
    labels: (N,) int64. rows: (M,) int64 into the store.
    rank, ranks: this process among those that share each batch.
    resident: whether the rows' images are copied to the device once; None: if it is an accelerator and they fit.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    preprocess: Preprocess
    batch_size: int
    device: torch.device
    rank: int = 0
    ranks: int = 1
    resident: bool | None = None

    def __len__(self) -> int:
        """Batches of a pass in order, the last one maybe smaller."""
        return -(-len(self.rows) // self.batch_size)

    def training_steps(self, images: int | None = None) -> int:
        """Batches of a shuffled pass, over `images` images; None: over all rows.

        A last batch with too few images for BatchNorm (two a process) is left out.
        """
        whole, rest = divmod(len(self.rows) if images is None else images, self.batch_size)
        return whole + (rest >= 2 * self.ranks)

    def class_weights(self, num_classes: int = 0) -> NDArray[np.float64]:
        """(K,) what an image of each class has to weigh for all classes to count alike; 1 in the mean over images."""
        counts = np.bincount(self.labels[self.rows], minlength=num_classes)
        weights: NDArray[np.float64] = len(self.rows) / ((counts > 0).sum() * np.maximum(counts, 1))
        return weights

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(normalized float32 images (B, 3, S, S), int64 labels (B,)) of every row once, as they stand."""
        for step in range(len(self)):
            stop = min((step + 1) * self.batch_size, len(self.rows))
            pixels, labels = self._load(np.arange(step * self.batch_size, stop))
            yield self.preprocess.normalize(pixels), labels

    def shuffled(
        self,
        seed: int,
        epoch: int,
        *,
        recipe: AugmentRecipe,
        flips: bool,
        first: int = 0,
        chosen: NDArray[np.int64] | None = None,
        balanced: bool = False,
    ) -> Iterator[tuple[int, Batch]]:
        """One training epoch from step `first` on: (step, batch), the rows in a new order, augmented.

        chosen: positions in `rows` of those that are shown; default: all. balanced: as many are drawn, with
        replacement, each class as often as any other. The same for the same (seed, epoch, step),
        wherever it starts and however many processes share it.
        """
        shown = np.arange(len(self.rows)) if chosen is None else chosen
        generator = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
        if balanced:
            weights = self.class_weights()[self.labels[self.rows[shown]]]
            order = generator.choice(shown, len(shown), p=weights / weights.sum())
        else:
            order = generator.permutation(shown)
        # Half of the images begin mirrored; each then alternates, so that two epochs show every image both ways.
        sides = np.random.default_rng(np.random.SeedSequence([seed, SIDES])).random(len(self.labels)) < 0.5
        for step in range(first, self.training_steps(len(order))):
            positions = order[step * self.batch_size : (step + 1) * self.batch_size]
            part = part_of(len(positions), self.rank, self.ranks)
            draws = Draws(generator_for(seed, epoch, step), len(positions), part)
            mine = positions[part]
            pixels, labels = self._load(mine)
            if recipe.trivial:
                changed = trivial_augment(pixels.permute(0, 3, 1, 2).float() / 255, draws)
                pixels = changed.permute(0, 2, 3, 1) * 255  # to be normalized as uint8 is, if no longer whole numbers
            images = self.preprocess.normalize(pixels)
            turn = torch.from_numpy(sides[self.rows[mine]] ^ (epoch % 2 == 1))
            images = augment(images, draws, recipe=recipe, flips=flips, turn=turn)
            images, share = mix(images, draws, recipe=recipe)
            yield step, Batch(images, labels, mine, len(positions), share)

    def _load(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(pixels (P, S, S, 3) uint8, labels (P,) int64) at some positions of `rows`, on the device."""
        if self._held is not None:
            images, labels = self._held
            chosen = torch.from_numpy(positions).to(self.device, non_blocking=True)
            return images[chosen], labels[chosen]
        rows = self.rows[positions]
        pixels = torch.from_numpy(read_rows(self.images, rows))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # so that the copy runs beside the training
        labels = torch.from_numpy(self.labels[rows]).to(self.device, non_blocking=True)
        return pixels.to(self.device, non_blocking=True), labels

    @cached_property
    def _held(self) -> tuple[Tensor, Tensor] | None:
        """The rows' images and labels on the device, where they are kept there."""
        if not (self._fits if self.resident is None else self.resident):
            return None
        images = torch.empty((len(self.rows), *self.images.shape[1:]), dtype=torch.uint8, device=self.device)
        for start in range(0, len(self.rows), 10_000):
            stop = start + 10_000
            images[start:stop] = torch.from_numpy(read_rows(self.images, self.rows[start:stop]))
        return images, torch.from_numpy(self.labels[self.rows]).to(self.device)

    @property
    def _fits(self) -> bool:
        if self.device.type != "cuda":  # a processor reads the store where it lies
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        return len(self.rows) * self.images[0].nbytes <= DEVICE_SHARE * free


def part_of(count: int, rank: int, ranks: int) -> slice:
    """The part of `count` images that one of `ranks` processes takes; all but the last begin at even positions.

    So partners in mixing, 0 and 1, 2 and 3 …, are never parted.
    """
    first, last = (count * each // ranks // 2 * 2 for each in (rank, rank + 1))
    return slice(first, count if rank == ranks - 1 else last)
