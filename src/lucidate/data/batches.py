"""A recipe's images, packed, divided, measured → batches to train on.

Order and augmentation are functions of (seed, epoch, step): there is no loader state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import AugmentRecipe, Recipe
from lucidate.core.records import slug
from lucidate.data.augment import Draws, augment, mix
from lucidate.data.pack import Pack, open_pack
from lucidate.data.packed import read_rows
from lucidate.data.preprocess import Preprocess, fit_preprocess
from lucidate.data.splits import Splits, divide, split_seed
from lucidate.data.trivial_augment import trivial_augment

SIDES = 2**31  # keeps the seed of alternating flips apart from that of any epoch's order
FEW = 20  # training images of a class below which its accuracy is mostly chance
NAMED = 5  # classes that a warning names
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

    images: (P, 3, S, S) float32, normalized, augmented. labels: (P,) int64. positions: (P,) int64, theirs in the rows.
    whole: images of the step in all processes. share: weight of `labels` where images are mixed, else 1.
    """

    images: Tensor
    labels: Tensor
    positions: NDArray[np.int64]
    whole: int
    share: float = 1.0


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of some rows of a store, on a device.

    images: (N, S, S, 3) uint8, the whole store. labels: (N,) int64. rows: (M,) int64 of those that are read.
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
        """Batches of a shuffled pass over so many images (None: all), without a last one too small for BatchNorm."""
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
            part = slice(start, start + 10_000)
            images[part] = torch.from_numpy(read_rows(self.images, self.rows[part]))
        return images, torch.from_numpy(self.labels[self.rows]).to(self.device)

    @property
    def _fits(self) -> bool:
        if self.device.type != "cuda":  # a processor reads the store where it lies
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        return len(self.rows) * self.images[0].nbytes <= DEVICE_SHARE * free


def part_of(count: int, rank: int, ranks: int) -> slice:
    """The part of `count` images that a process takes, from an even position: partners in mixing are never parted."""
    first, last = (count * each // ranks // 2 * 2 for each in (rank, rank + 1))
    return slice(first, count if rank == ranks - 1 else last)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A packed store, its division, and what is done to its pixels."""

    pack: Pack
    splits: Splits
    preprocess: Preprocess

    def batches(self, split: str, *, batch_size: int, device: torch.device | str = "cpu") -> Batches:
        """One split's batches on a device."""
        pack, rows = self.pack, self.splits.rows(split)
        return Batches(pack.images, pack.labels, rows, self.preprocess, batch_size, torch.device(device))


def prepare(recipe: Recipe, *, reporter: Reporter | None = None) -> Dataset:
    """Open the recipe's source, divide it, and measure the training images. Raises SourceError."""
    reporter = reporter or Silent()
    pack = open_pack(recipe.data.source, image_size=recipe.data.image_size, reporter=reporter)
    if recipe.data.name:
        pack = replace(pack, dataset=slug(recipe.data.name))
    splits = divide(pack, recipe)
    if splits.scheme != recipe.data.split:
        reporter.say(f"{pack.source} has no test split of its own: pooled {splits.scheme}, seed {split_seed(recipe)}")
    balanced = recipe.train.balance != "none"
    for warning in (*missing_classes(pack, splits), *small_classes(pack, splits, balanced=balanced)):
        reporter.say(warning)
    return Dataset(pack, splits, fit_preprocess(pack.images, splits.train))


def missing_classes(pack: Pack, splits: Splits) -> list[str]:
    """A sentence for each split in which some class has no image, and what that means for the figures."""
    found = []
    meanings = ("it cannot be learned", "it does not count in selection", "its accuracy stays unknown")
    for (split, rows), meaning in zip(splits, meanings, strict=True):
        counts = np.bincount(pack.labels[rows], minlength=len(pack.class_names))
        names = [pack.class_names[label] for label in np.flatnonzero(counts == 0)]
        if names:
            shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            each = " (each of them)" if len(names) > 1 else ""
            found.append(f"warning: {split}: no image of {shown}, so that {meaning}{each}; add images of it")
    return found


def small_classes(pack: Pack, splits: Splits, *, balanced: bool) -> list[str]:
    """A sentence where classes have fewer than 20 training images, the smallest named first; balanced: they weigh more
    already."""
    counts = np.bincount(pack.labels[splits.train], minlength=len(pack.class_names))
    small = [int(label) for label in np.argsort(counts, kind="stable") if 0 < counts[label] < FEW]
    if not small:
        return []
    shown = ", ".join(f"{pack.class_names[label]} ({counts[label]})" for label in small[:NAMED])
    more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
    which = "a class has" if len(small) == 1 else f"{len(small)} classes have"
    balance = "" if balanced else ", or set train.balance=weights where others have many"
    return [
        f"warning: train: {which} fewer than {FEW} images: {shown}{more}; what is learned of them, and said of them, "
        f"is uncertain; add images{balance}"
    ]
