"""What are the images: how many has each class, in each split, and what do they look like?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import count, images, percent, without_images


@dataclass(frozen=True, eq=False)
class ClassDistribution:
    """counts: (S, K) int64, images of class k in split s."""

    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def imbalance(self) -> float:
        """Images of the largest class by those of the smallest that has any, all splits together; 1 is balanced."""
        totals = self.counts.sum(axis=0)
        return float(totals.max() / totals[totals > 0].min())

    @property
    def headline(self) -> str:
        """How even the classes are, and which of them a split lacks."""
        lacking = (
            without_images([name for name, number in zip(self.class_names, row, strict=True) if not number], split)
            for split, row in zip(self.splits, self.counts.tolist(), strict=True)
        )
        return self._balance + "".join(lacking)

    @property
    def _balance(self) -> str:
        totals, names = self.counts.sum(axis=0), self.class_names
        most, fewest, whole = int(totals.max()), int(totals.min()), count(int(totals.sum()), "image")
        fair = f"in each of {len(totals):,} classes, so accuracy is a fair summary."
        if most == fewest:
            return f"Perfectly balanced: {whole}, {most:,} {fair}"
        if fewest and self.imbalance < 1.05:
            return f"Nearly balanced: {whole}, {fewest:,} to {most:,} {fair}"
        first, last = names[totals.argmax()], names[totals.argmin()]
        largest = f"Of {whole}, {first} has the most ({most:,}, {percent(most / totals.sum())})"
        if not fewest:
            return f"{largest} and {last} has none."
        return f"{largest}, {self.imbalance:.1f} times as many as {last}, which has the fewest ({fewest:,})."

    def frame(self) -> pd.DataFrame:
        """One row a class, one column a split."""
        return pd.DataFrame({"class": self.class_names, **dict(zip(self.splits, self.counts, strict=True))})


def class_distribution(labels_by_split: Mapping[str, NDArray[Any]], class_names: tuple[str, ...]) -> ClassDistribution:
    """Count the labels of each split. labels: (N,) integers in [0, K)."""
    counts = [np.bincount(labels, minlength=len(class_names)) for labels in labels_by_split.values()]
    return ClassDistribution(class_names, tuple(labels_by_split), np.array(counts, dtype=np.int64))


MAX_CLASSES = 30  # more rows than this are no longer looked at


@dataclass(frozen=True, eq=False)
class ExamplesPerClass:
    """A seeded random draw: images of one class in one row.

    ids: (T,) str; index: (T,) int64 rows of the packed store; labels: (T,) int64, ascending.
    """

    class_names: tuple[str, ...]
    ids: NDArray[np.str_]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    per_class: int
    split: str
    pool: int

    @property
    def headline(self) -> str:
        if not len(self.labels):
            return f"There are no {self.split} images to draw from."
        sizes = np.unique(self.labels, return_counts=True)[1]
        number = ("" if sizes.min() == sizes.max() else "Up to ") + count(int(sizes.max()), "image")
        some = f"first {len(sizes)} of {len(self.class_names):,}"
        classes = some if len(self.class_names) > MAX_CLASSES else len(sizes)
        pool = images(self.pool, self.split)
        return f"{number} of each of the {classes} classes, drawn at random from {pool}: could you name them all?"

    def frame(self) -> pd.DataFrame:
        """One row an image."""
        return pd.DataFrame({"id": self.ids, "class": np.array(self.class_names)[self.labels]})


def examples_per_class(
    ids: NDArray[np.str_],
    index: NDArray[np.int64],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    *,
    split: str,
    per_class: int = 10,
    seed: int = 0,
) -> ExamplesPerClass:
    """Draw `per_class` images of each class (all of a smaller class), the same for the same seed.

    ids, index, labels: (N,), of the images to draw from.
    """
    generator = np.random.default_rng(seed)
    rows: list[int] = []
    for label in range(min(len(class_names), MAX_CLASSES)):
        members = np.flatnonzero(labels == label)
        rows += sorted(generator.choice(members, min(per_class, len(members)), replace=False).tolist())
    chosen = np.array(rows, dtype=np.int64)
    return ExamplesPerClass(class_names, ids[chosen], index[chosen], labels[chosen], per_class, split, len(labels))
