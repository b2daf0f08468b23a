"""What does an ensemble bring over its members, and how much do these differ?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import images, interval, p_value, percent, points
from lucidate.analysis.statistics import mcnemar, wilson_interval
from lucidate.core.records import Predictions


@dataclass(frozen=True, eq=False)
class EnsembleGain:
    """An ensemble beside its members, on one split. Accuracies are shares from 0 to 1.

    names, accuracies, shares: one a member. best: the member of the highest accuracy here. gain: the ensemble's
    accuracy less the best member's; p: McNemar's exact p of the two. disagreement: (M, M), share of images on which
    two members answer differently; both_wrong: (M, M), share on which both err. An ensemble gains where members err on
    different images: high disagreement, low both_wrong.
    """

    split: str
    images: int
    method: str
    names: tuple[str, ...]
    accuracies: tuple[float, ...]
    shares: tuple[float, ...]
    accuracy: float
    low: float
    high: float
    best: str
    best_accuracy: float
    gain: float
    p: float
    disagreement: NDArray[np.float64]
    both_wrong: NDArray[np.float64]

    @property
    def mean_disagreement(self) -> float:
        """Over all pairs of members; 0 of a single one."""
        return _mean_of_pairs(self.disagreement)

    @property
    def headline(self) -> str:
        clear = "a difference beyond chance" if self.p < 0.05 else "within what chance explains"
        return (
            f"The ensemble is right on {percent(self.accuracy)} of {images(self.images, self.split)} "
            f"({interval(self.low, self.high)}), {points(self.gain)} against its best member, {self.best} "
            f"({clear}, {p_value(self.p)}); two members differ on {percent(self.mean_disagreement)} of the images."
        )

    def frame(self) -> pd.DataFrame:
        """A row a member, the ensemble last."""
        members = zip(self.names, self.accuracies, self.shares, strict=True)
        rows = [{"model": name, "accuracy": accuracy, "share": share} for name, accuracy, share in members]
        return pd.DataFrame([*rows, {"model": "ensemble", "accuracy": self.accuracy, "share": 1.0}])


def ensemble_gain(
    ensemble: Predictions, members: Sequence[Predictions], *, names: Sequence[str], shares: Sequence[float], method: str
) -> EnsembleGain:
    """Compare an ensemble with its members. All must be aligned; names and shares: one a member."""
    right = np.stack([member.correct for member in members])
    answers = np.stack([member.predicted for member in members])
    accuracies = right.mean(1)
    best = int(accuracies.argmax())
    low, high = wilson_interval(int(ensemble.correct.sum()), len(ensemble))
    count = len(members)
    disagreement, both_wrong = np.zeros((count, count)), np.zeros((count, count))
    for a in range(count):
        for b in range(count):
            disagreement[a, b] = (answers[a] != answers[b]).mean()
            both_wrong[a, b] = (~right[a] & ~right[b]).mean()
    return EnsembleGain(
        split=ensemble.split,
        images=len(ensemble),
        method=method,
        names=tuple(names),
        accuracies=tuple(accuracies.tolist()),
        shares=tuple(float(share) for share in shares),
        accuracy=ensemble.accuracy,
        low=float(low),
        high=float(high),
        best=names[best],
        best_accuracy=float(accuracies[best]),
        gain=ensemble.accuracy - float(accuracies[best]),
        p=mcnemar(int((right[best] & ~ensemble.correct).sum()), int((~right[best] & ensemble.correct).sum())),
        disagreement=disagreement,
        both_wrong=both_wrong,
    )


def _mean_of_pairs(matrix: NDArray[np.float64]) -> float:
    pairs = [float(matrix[a, b]) for a, b in combinations(range(len(matrix)), 2)]
    return float(np.mean(pairs)) if pairs else 0.0
