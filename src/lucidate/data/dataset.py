"""A recipe's images, ready to train on: packed, divided, measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import Recipe
from lucidate.data.batches import Batches
from lucidate.data.pack import Pack, open_pack
from lucidate.data.preprocess import Preprocess, fit_preprocess
from lucidate.data.splits import Splits, divide, split_seed


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
    splits = divide(pack, recipe)
    if splits.scheme != recipe.data.split:
        reporter.say(f"{pack.source} has no test split of its own: pooled {splits.scheme}, seed {split_seed(recipe)}")
    return Dataset(pack, splits, fit_preprocess(pack.images, splits.train))
