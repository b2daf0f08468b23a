"""Is one model better than another on the same images, and where do they differ?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.class_changes import ClassChanges, class_changes
from lucidate.analysis.flips import Flips
from lucidate.analysis.formatting import count, images, p_value, percent, points, points_interval
from lucidate.analysis.samples import Tiles, pick
from lucidate.analysis.statistics import LEVEL, mcnemar, paired_interval, wilson_interval
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
        return pd.DataFrame(
            [
                {
                    "a": self.first.name,
                    "b": self.second.name,
                    "images": self.images,
                    "accuracy_a": self.first.accuracy,
                    "low_95_a": self.first.low,
                    "high_95_a": self.first.high,
                    "accuracy_b": self.second.accuracy,
                    "low_95_b": self.second.low,
                    "high_95_b": self.second.high,
                    "difference": self.difference,
                    "difference_low_95": self.low,
                    "difference_high_95": self.high,
                    "mcnemar_p": self.mcnemar_p,
                    "both_right": self.both_right,
                    "only_a_right": len(self.broken),
                    "only_b_right": len(self.fixed),
                    "both_wrong": self.both_wrong,
                    "both_wrong_differently": self.changed_wrong,
                    "only_in_a": self.left_out[0],
                    "only_in_b": self.left_out[1],
                }
            ]
        )


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
    shared, rows_a, rows_b = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    if not len(shared):
        raise PredictionsError(
            f"ids: expected images in common, received none ({a} answers {str(first.ids[0])!r} and others, {b} "
            f"{str(second.ids[0])!r}); compare predictions of one split of the same images"
        )
    one, other = pick(first, rows_a), _numbered_as(first.class_names, pick(second, rows_b))
    _same_labels(one, other, names=(a, b))
    right_a, right_b = one.labels == one.predicted, other.labels == other.predicted
    gain = other.true_probability - one.true_probability

    def flips(chosen: NDArray[np.bool_], *, fixed: bool) -> Flips:
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(-np.abs(gain[rows]), kind="stable")]  # ids ascend, so ties are stable
        return Flips((a, b), fixed, len(shared), one.take(rows), other.take(rows))

    fixed, broken = flips(~right_a & right_b, fixed=True), flips(right_a & ~right_b, fixed=False)
    low, high = paired_interval(len(broken), len(fixed), len(shared))
    return Comparison(
        first=_side(a, right_a),
        second=_side(b, right_b),
        dataset=first.dataset,
        split=first.split if first.split == second.split else "all",
        images=len(shared),
        left_out=(len(first) - len(shared), len(second) - len(shared)),
        both_right=int((right_a & right_b).sum()),
        both_wrong=int((~right_a & ~right_b).sum()),
        changed_wrong=int((~right_a & ~right_b & (one.predicted != other.predicted)).sum()),
        low=float(low),
        high=float(high),
        mcnemar_p=mcnemar(len(broken), len(fixed)),
        classes=class_changes(one.labels, right_a, right_b, first.class_names, names=(a, b)),
        fixed=fixed,
        broken=broken,
    )


def _side(name: str, right: NDArray[np.bool_]) -> Side:
    low, high = wilson_interval(right.sum(), len(right))
    return Side(name, int(right.sum()), float(right.mean()), float(low), float(high))


def _only(these: Predictions, those: Predictions) -> str:
    """Class names of one table that the other lacks, the first few."""
    names = [name for name in these.class_names if name not in those.class_names]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more if names else "none"


def _numbered_as(class_names: tuple[str, ...], tiles: Tiles) -> Tiles:
    """The same answers, classes numbered by another order of the same names."""
    if tiles.class_names == class_names:
        return tiles
    place = np.array([class_names.index(name) for name in tiles.class_names], dtype=np.int64)
    return replace(tiles, labels=place[tiles.labels], predicted=place[tiles.predicted], class_names=class_names)


def _same_labels(one: Tiles, other: Tiles, *, names: tuple[str, str]) -> None:
    differing = np.flatnonzero(one.labels != other.labels)
    if differing.size:
        row = differing[0]
        said = [tiles.class_names[tiles.labels[row]] for tiles in (one, other)]
        raise PredictionsError(
            f"labels: expected one label an image, received {said[0]!r} in {names[0]} and {said[1]!r} in {names[1]} "
            f"for {str(one.ids[row])!r} ({differing.size:,} in all); were both made from the same images?"
        )
