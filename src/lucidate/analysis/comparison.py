"""Is one model better than another on the same images, where do they differ, in which classes and images?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import count, images, p_value, percent, points, points_interval
from lucidate.analysis.samples import Tiles, pick
from lucidate.analysis.statistics import LEVEL, mcnemar, paired_interval, share_interval, shares
from lucidate.core.alignment import class_order, rows_of
from lucidate.core.errors import PredictionsError
from lucidate.core.records import Predictions

NAMED = 4  # classes that an error names


@dataclass(frozen=True)
class Side:
    """One of the two models. right: its right answers; accuracy: their share, with its 95 % Wilson interval."""

    name: str
    right: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models on the images that both answered.

    images: how many those are; left_out: how many more only the first, and only the second, answered.
    both_right, both_wrong: images; changed_wrong: those of both_wrong that are given two different wrong answers.
    low, high: 95 % interval of `difference`. mcnemar_p: McNemar's exact p, 0 to 1.
    """

    first: Side
    second: Side
    dataset: str
    split: str
    images: int
    left_out: tuple[int, int]
    both_right: int
    both_wrong: int
    changed_wrong: int
    low: float
    high: float
    mcnemar_p: float
    classes: ClassChanges
    fixed: Flips
    broken: Flips

    @property
    def names(self) -> tuple[str, str]:
        return self.first.name, self.second.name

    @property
    def difference(self) -> float:
        """Accuracy of the second less that of the first, -1 to 1: above 0 the second is better."""
        return (self.second.right - self.first.right) / self.images

    @property
    def headline(self) -> str:
        a, b = self.names
        of = images(self.images, self.split)
        if not len(self.fixed) and not len(self.broken):
            return f"{a} and {b} are right on the same images: {percent(self.first.accuracy)} of {of}."
        measured = (
            f"{percent(self.second.accuracy)} against {percent(self.first.accuracy)} of {of} "
            f"({points(self.difference)}, {points_interval(self.low, self.high)}, McNemar {p_value(self.mcnemar_p)})"
        )
        flips = f"It fixes {count(len(self.fixed), 'image')} and breaks {len(self.broken):,}."
        if self.mcnemar_p >= LEVEL:
            return f"{b} differs from {a} by no more than chance can: {measured}. {flips}"
        return f"{b} is {'better' if self.difference > 0 else 'worse'} than {a}: {measured}. {flips}"

    def frame(self) -> pd.DataFrame:
        """One row."""
        row: dict[str, Any] = {"a": self.first.name, "b": self.second.name, "images": self.images}
        for side, of in (("a", self.first), ("b", self.second)):
            row |= {f"accuracy_{side}": of.accuracy, f"low_95_{side}": of.low, f"high_95_{side}": of.high}
        row |= {"difference": self.difference, "difference_low_95": self.low, "difference_high_95": self.high}
        row |= {"mcnemar_p": self.mcnemar_p, "both_right": self.both_right}
        row |= {"only_a_right": len(self.broken), "only_b_right": len(self.fixed)}
        row |= {"both_wrong": self.both_wrong, "both_wrong_differently": self.changed_wrong}
        return pd.DataFrame([{**row, "only_in_a": self.left_out[0], "only_in_b": self.left_out[1]}])


def compare(first: Predictions, second: Predictions, *, names: tuple[str, str] | None = None) -> Comparison:
    """Compare two tables of predictions on the images that both hold, joined by `ids`.

    Classes may stand in another order in the second; records number them as the first does.
    names: what to call the two; default: their models' names. Names that are alike are told apart by "(A)" and "(B)".
    Raises PredictionsError where classes differ, no image is in common, or an image has two labels.
    """
    a, b = names or (first.model, second.model)
    if a == b:
        a, b = f"{a} (A)", f"{b} (B)"
    if sorted(first.class_names) != sorted(second.class_names):
        raise PredictionsError(
            f"classes: expected the same in both, received {_only(first, second)} only in {a} and "
            f"{_only(second, first)} only in {b}; compare models of the same classes"
        )
    rows_a = np.argsort(first.ids)
    rows_b = rows_of(second.ids, first.ids[rows_a])
    rows_a, rows_b = rows_a[rows_b >= 0], rows_b[rows_b >= 0]
    shared = len(rows_a)
    if not shared:
        raise PredictionsError(
            f"ids: expected images in common, received none ({a} answers {str(first.ids[0])!r} and others, {b} "
            f"{str(second.ids[0])!r}); compare predictions of one split of the same images"
        )
    one, other = pick(first, rows_a), pick(second, rows_b)
    order = class_order(second.class_names, first.class_names)  # classes are numbered as the first does
    other = replace(other, labels=order[other.labels], predicted=order[other.predicted], class_names=first.class_names)
    differing = np.flatnonzero(one.labels != other.labels)
    if differing.size:
        row = differing[0]
        said = [first.class_names[tiles.labels[row]] for tiles in (one, other)]
        raise PredictionsError(
            f"labels: expected one label an image, received {said[0]!r} in {a} and {said[1]!r} in {b} "
            f"for {str(one.ids[row])!r} ({differing.size:,} in all); were both made from the same images?"
        )
    right_a, right_b = one.correct, other.correct
    gain = other.true_probability - one.true_probability

    def flips(chosen: NDArray[np.bool_], *, fixed: bool) -> Flips:
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(-np.abs(gain[rows]), kind="stable")]  # ids ascend, so ties are stable
        return Flips((a, b), fixed, shared, one.take(rows), other.take(rows))

    fixed, broken = flips(~right_a & right_b, fixed=True), flips(right_a & ~right_b, fixed=False)
    low, high = paired_interval(len(broken), len(fixed), shared)
    return Comparison(
        first=_side(a, right_a),
        second=_side(b, right_b),
        dataset=first.dataset,
        split=first.split if first.split == second.split else "all",
        images=shared,
        left_out=(len(first) - shared, len(second) - shared),
        both_right=int((right_a & right_b).sum()),
        both_wrong=int((~right_a & ~right_b).sum()),
        changed_wrong=int((~right_a & ~right_b & (one.predicted != other.predicted)).sum()),
        low=float(low),
        high=float(high),
        mcnemar_p=mcnemar(len(broken), len(fixed)),
        classes=class_changes(one, other, names=(a, b)),
        fixed=fixed,
        broken=broken,
    )


def _side(name: str, right: NDArray[np.bool_]) -> Side:
    accuracy = float(right.mean())
    return Side(name, int(right.sum()), accuracy, *share_interval(accuracy, len(right)))


def _only(these: Predictions, those: Predictions) -> str:
    """Class names of one table that the other lacks, the first few."""
    names = [name for name in these.class_names if name not in those.class_names]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more if names else "none"


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
        return shares(self.right_a, self.total)

    @property
    def accuracy_b(self) -> NDArray[np.float64]:
        """(K,) the same of the second."""
        return shares(self.right_b, self.total)

    @property
    def change(self) -> NDArray[np.float64]:
        """(K,) accuracy of the second less that of the first: above 0 the second is better; NaN without images."""
        return shares(self.fixed - self.broken, self.total)

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
        accuracies = {"class": self.class_names, "accuracy_a": self.accuracy_a, "accuracy_b": self.accuracy_b}
        change = {"change": self.change, "low_95": self.low, "high_95": self.high}
        counts = {"fixed": self.fixed, "broken": self.broken, "images": self.total}
        return pd.DataFrame({**accuracies, **change, **counts}).iloc[self.order].reset_index(drop=True)


def class_changes(first: Tiles, second: Tiles, *, names: tuple[str, str]) -> ClassChanges:
    """Accuracy of each class with both models, of the same images in the same order."""

    def tally(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(first.labels[chosen], minlength=len(first.class_names))

    a, b = first.correct, second.correct
    total, fixed, broken = tally(np.ones_like(a)), tally(~a & b), tally(a & ~b)
    low, high = (np.where(total > 0, end, np.nan) for end in paired_interval(broken, fixed, total))
    return ClassChanges(names, first.class_names, total, tally(a), tally(b), fixed, broken, low, high)


@dataclass(frozen=True, eq=False)
class Flips:
    """All images that flipped one way, T of them, the largest change of the true class's probability first.

    names: of the two models. fixed: wrong in the first and right in the second; else the other way round ("broken").
    images: how many were compared. first, second: the same images as each model answered them, (T,) each.
    """

    names: tuple[str, str]
    fixed: bool
    images: int
    first: Tiles
    second: Tiles

    def __len__(self) -> int:
        return len(self.first)

    @property
    def change(self) -> NDArray[np.float64]:
        """(T,) probability of the true class in the second model less that in the first."""
        return self.second.true_probability - self.first.true_probability

    @property
    def headline(self) -> str:
        first, second = ("wrong", "right") if self.fixed else ("right", "wrong")
        way = f"{first} in {self.names[0]} and {second} in {self.names[1]}"
        if not len(self):
            return f"No image is {way}."
        verb = "is" if len(self) == 1 else "are"
        share = percent(len(self) / self.images)
        sentence = f"{count(len(self))} of {count(self.images, 'image')} ({share}) {verb} {way}"
        labels, counts = np.unique(self.first.labels, return_counts=True)
        if len(labels) > 1 and (counts == counts.max()).sum() == 1:
            sentence += f"; {self.first.class_names[labels[counts.argmax()]]} has the most of them ({counts.max():,})"
        return f"{sentence}."

    def frame(self) -> pd.DataFrame:
        """One row an image: its id and class, both answers with their confidence, the true class's probabilities."""
        names = np.array(self.first.class_names)
        columns: dict[str, Any] = {"id": self.first.ids, "true_class": names[self.first.labels]}
        sides = (("a", self.first), ("b", self.second))
        for side, tiles in sides:
            columns |= {f"answer_{side}": names[tiles.predicted], f"confidence_{side}": tiles.confidence}
        columns |= {f"true_class_probability_{side}": tiles.true_probability for side, tiles in sides}
        return pd.DataFrame({**columns, "change": self.change})
