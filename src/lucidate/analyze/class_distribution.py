"""How many images has each class, in each split?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analyze.wording import count, percent


@dataclass(frozen=True, eq=False)
class ClassDistribution:
    """counts: (S, K) int64, images of class k in split s."""

    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def imbalance(self) -> float:
        """Images of the largest class to those of the smallest, all splits together; 1 is balanced."""
        totals = self.counts.sum(axis=0)
        return float(totals.max() / max(totals.min(), 1))

    @property
    def headline(self) -> str:
        totals = self.counts.sum(axis=0)
        largest, smallest = int(totals.argmax()), int(totals.argmin())
        whole = count(int(totals.sum()), "image")
        if totals[largest] == totals[smallest]:
            return (
                f"Perfectly balanced: {whole}, {count(int(totals[largest]))} in each of {len(totals)} classes, "
                "so accuracy is a fair summary."
            )
        if self.imbalance < 1.05:
            return (
                f"Nearly balanced: {whole}, {count(int(totals[smallest]))} to {count(int(totals[largest]))} in each of "
                f"{len(totals)} classes, so accuracy is a fair summary."
            )
        return (
            f"Of {whole}, {self.class_names[largest]} has the most ({count(int(totals[largest]))}, "
            f"{percent(totals[largest] / totals.sum())}) and {self.class_names[smallest]} the fewest "
            f"({count(int(totals[smallest]))}): {self.imbalance:.1f} to 1."
        )

    def frame(self) -> pd.DataFrame:
        """One row a class, one column a split."""
        columns = {split: self.counts[row] for row, split in enumerate(self.splits)}
        return pd.DataFrame({"class": self.class_names, **columns})


def class_distribution(labels_by_split: Mapping[str, NDArray[Any]], class_names: tuple[str, ...]) -> ClassDistribution:
    """Count the labels of each split. labels: (N,) integers in [0, K)."""
    counts = [np.bincount(labels, minlength=len(class_names)) for labels in labels_by_split.values()]
    return ClassDistribution(class_names, tuple(labels_by_split), np.array(counts, dtype=np.int64))
