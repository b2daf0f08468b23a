"""What do the images of each class look like?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import images

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
        shown = len(sizes)
        number = f"{sizes[0]}" if sizes.min() == sizes.max() else f"Up to {sizes.max()}"
        classes = f"each of the {shown} classes"
        if len(self.class_names) > MAX_CLASSES:
            classes = f"each of the first {shown} of {len(self.class_names):,} classes"
        return (
            f"{number} {'image' if sizes.max() == 1 else 'images'} of {classes}, drawn at random from "
            f"{images(self.pool, self.split)}: could you name them all?"
        )

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
