"""A recipe's images, ready to train on: packed, divided, measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import Recipe
from lucidate.core.records import slug
from lucidate.data.batches import Batches
from lucidate.data.pack import Pack, open_pack
from lucidate.data.preprocess import Preprocess, fit_preprocess
from lucidate.data.splits import Splits, divide, split_seed

NAMED = 5  # classes that a warning names
FEW = 20  # training images of a class below which its accuracy is mostly chance


@dataclass(frozen=True, eq=False)
class Dataset:
    """A packed store, its division, and what is done to its pixels."""

    pack: Pack
    splits: Splits
    preprocess: Preprocess

    def batches(self, split: str, *, batch_size: int, device: torch.device | str = "cpu") -> Batches:
        """One split's batches on a device."""
        return Batches(
            self.pack.images,
            self.pack.labels,
            self.splits.rows(split),
            self.preprocess,
            batch_size,
            torch.device(device),
        )


def prepare(recipe: Recipe, *, reporter: Reporter | None = None) -> Dataset:
    """Open the recipe's source, divide it, and measure the training images. Raises SourceError."""
    reporter = reporter or Silent()
    pack = open_pack(recipe.data.source, image_size=recipe.data.image_size, reporter=reporter)
    if recipe.data.name:
        pack = replace(pack, dataset=slug(recipe.data.name))
    splits = divide(pack, recipe)
    if splits.scheme != recipe.data.split:
        reporter.say(f"{pack.source} has no test split of its own: pooled {splits.scheme}, seed {split_seed(recipe)}")
    for warning in (*missing_classes(pack, splits), *small_classes(pack, splits)):
        reporter.say(warning)
    return Dataset(pack, splits, fit_preprocess(pack.images, splits.train))


def missing_classes(pack: Pack, splits: Splits) -> list[str]:
    """A sentence for each split in which some class has no image, and what that means for the figures."""
    meaning = {
        "train": "so that it cannot be learned",
        "validation": "so that it does not count in selection",
        "test": "so that its accuracy stays unknown",
    }
    found = []
    for split, rows in splits:
        counts = np.bincount(pack.labels[rows], minlength=len(pack.class_names))
        names = [pack.class_names[label] for label in np.flatnonzero(counts == 0)]
        if names:
            shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            each = " (each of them)" if len(names) > 1 else ""
            found.append(f"warning: {split}: no image of {shown}, {meaning[split]}{each}; add images of it")
    return found


def small_classes(pack: Pack, splits: Splits) -> list[str]:
    """A sentence where classes have fewer than 20 training images, the smallest named first."""
    counts = np.bincount(pack.labels[splits.train], minlength=len(pack.class_names))
    small = [int(label) for label in np.argsort(counts, kind="stable") if 0 < counts[label] < FEW]
    if not small:
        return []
    shown = ", ".join(f"{pack.class_names[label]} ({counts[label]})" for label in small[:NAMED])
    more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
    which = "a class has" if len(small) == 1 else f"{len(small)} classes have"
    return [
        f"warning: train: {which} fewer than {FEW} images: {shown}{more}; what is learned of them, and said of them, "
        "is uncertain; add images, or set train.balance=weights where others have many"
    ]
