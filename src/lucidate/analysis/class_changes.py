"""Which classes does one model know better than the other?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import points, points_interval
from lucidate.analysis.statistics import paired_interval


@dataclass(frozen=True, eq=False)
class ClassChanges:
    """Two models on the same images, class by class: arrays (K,), classes in the first model's order.

    names: of the two models. total: images. right_a, right_b: right answers of the first and of the second model.
    fixed: wrong in the first, right in the second; broken: the other way round. low, high: 95 % interval of `change`,
    NaN without images.
    """

    names: tuple[str, str]
    class_names: tuple[str, ...]
    total: NDArray[np.int64]
    right_a: NDArray[np.int64]
    right_b: NDArray[np.int64]
    fixed: NDArray[np.int64]
    broken: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def accuracy_a(self) -> NDArray[np.float64]:
        """(K,) share of right answers of the first model, NaN without images."""
        return self._share(self.right_a)

    @property
    def accuracy_b(self) -> NDArray[np.float64]:
        """(K,) the same of the second."""
        return self._share(self.right_b)

    @property
    def change(self) -> NDArray[np.float64]:
        """(K,) accuracy of the second less that of the first: above 0 the second is better; NaN without images."""
        return self._share(self.fixed - self.broken)

    @property
    def clear(self) -> NDArray[np.bool_]:
        """(K,) whether the 95 % interval of the change leaves out 0."""
        return (self.low > 0) | (self.high < 0)

    @property
    def order(self) -> NDArray[np.intp]:
        """(K,) class indices by falling size of the change, either way; classes without images last."""
        return np.argsort(-np.abs(self.change), kind="stable")

    @property
    def headline(self) -> str:
        change, names = np.nan_to_num(self.change), self.class_names
        best, worst = int(change.argmax()), int(change.argmin())
        if not change.any():
            which = "Every class" if self.total.all() else "Every class that has images"
            return f"{which} is as accurate with one as with the other."

        def say(k: int, verb: str) -> str:
            return f"{names[k]} {verb} most, {points(change[k])} ({points_interval(self.low[k], self.high[k])})"

        said = [say(best, "gains")] if change[best] > 0 else ["no class gains"]
        said.append(say(worst, "loses") if change[worst] < 0 else "no class loses")
        sentence = "; ".join(said if change[best] >= -change[worst] else said[::-1])
        clear = int(self.clear.sum())
        many = f"{clear:,} of {int((self.total > 0).sum()):,} classes" if clear else "no class"
        return f"{sentence}. The 95 % interval leaves out 0 for {many}."

    def frame(self) -> pd.DataFrame:
        """One row a class, the largest change first."""
        table = pd.DataFrame(
            {
                "class": self.class_names,
                "accuracy_a": self.accuracy_a,
                "accuracy_b": self.accuracy_b,
                "change": self.change,
                "low_95": self.low,
                "high_95": self.high,
                "fixed": self.fixed,
                "broken": self.broken,
                "images": self.total,
            }
        )
        return table.iloc[self.order].reset_index(drop=True)

    def _share(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(counts, self.total, out=np.full(len(self.total), np.nan), where=self.total > 0)


def class_changes(
    labels: NDArray[np.int64],
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    class_names: tuple[str, ...],
    *,
    names: tuple[str, str],
) -> ClassChanges:
    """Accuracy of each class with both models. labels, correct_*: (N,), of the same images."""

    def tally(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(labels[chosen], minlength=len(class_names))

    total, fixed, broken = tally(np.ones_like(correct_a)), tally(~correct_a & correct_b), tally(correct_a & ~correct_b)
    low, high = (np.where(total > 0, end, np.nan) for end in paired_interval(broken, fixed, total))
    return ClassChanges(names, class_names, total, tally(correct_a), tally(correct_b), fixed, broken, low, high)
