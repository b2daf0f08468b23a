"""What did each level of the challenge buy, a teacher bring its student, an ensemble bring over its members?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import images, interval, listed, p_value, percent, points, points_interval, span
from lucidate.analysis.statistics import LEVEL, Mean, mcnemar, mean_over_seeds, share_interval, wilson_interval
from lucidate.core.records import Predictions


@dataclass(frozen=True)
class Level:
    """One level's model and how well it does.

    level: 1 to 4. title: what the level adds. run: folder of its run, relative to that of the levels. model: in words.
    origin: how its weights began, "pretrained" or "from scratch". weights: where they came from. parameters: trainable.
    *_accuracy: shares from 0 to 1, with their 95 % Wilson intervals. change: test accuracy less that of the level
    before, and p: McNemar's exact p of the two on the same images; None for the first level. seconds: of training
    (of an ensemble, its members' together). images_per_second: shown in training, validation included in the time.
    members, best_member_test_accuracy: of an ensemble.
    """

    level: int
    title: str
    run: str
    model: str
    origin: str
    parameters: int
    val_images: int
    val_accuracy: float
    val_low: float
    val_high: float
    test_images: int
    test_accuracy: float
    test_low: float
    test_high: float
    change: float | None
    p: float | None
    seconds: float
    images_per_second: float
    members: tuple[Level, ...] = ()
    best_member_test_accuracy: float | None = None
    weights: str = ""


@dataclass(frozen=True)
class LevelsTable:
    """The levels in their order. notes: what a reader of the figures must know.

    best_p: McNemar's exact p of the level of the highest test accuracy against that of the second highest, on the same
    images; None where it is not known, and their intervals tell.
    """

    levels: tuple[Level, ...]
    notes: tuple[str, ...] = ()
    best_p: float | None = None

    @property
    def headline(self) -> str:
        first, last = self.levels[0], self.levels[-1]
        gain = points(last.test_accuracy - first.test_accuracy)
        if len(self.levels) == 1:
            return f"Level {first.level}: {_of(first)}."
        return f"From level {first.level} to level {last.level} test accuracy changed by {gain}; {self._best}."

    @property
    def _best(self) -> str:
        """Which level is the best, where more than chance says so."""
        best, second, *_ = sorted(self.levels, key=lambda level: -level.test_accuracy)
        tied = [str(level.level) for level in self.levels if level.test_accuracy == best.test_accuracy]
        if len(tied) > 1:
            return f"levels {listed(tied)} tie at {_of(best)}, so none is the best"
        clear = self.best_p < LEVEL if self.best_p is not None else best.test_low > second.test_high
        if clear:
            return f"level {best.level} is the best, {_of(best)}"
        p = f" ({p_value(self.best_p)})" if self.best_p is not None else ""
        beyond = f"but not better than level {second.level} beyond chance{p}"
        return f"level {best.level} is the highest, {_of(best)}, {beyond}"

    def frame(self) -> pd.DataFrame:
        """A row a level, and one a member of an ensemble, whose `level` reads such as 4.1."""
        rows = []
        for level in self.levels:
            rows.append({**vars(level), "level": str(level.level)})
            for position, member in enumerate(level.members, 1):
                rows.append({**vars(member), "level": f"{level.level}.{position}"})
        return pd.DataFrame(rows).drop(columns=["members"])


def _of(level: Level) -> str:
    return f"{100 * level.test_accuracy:.1f}\N{NO-BREAK SPACE}%"


ARROW = 36  # columns of the longest arrow
HEADINGS = ("", "model", "test accuracy", "95 % CI", "parameters", "ONNX file", "one image")
RIGHT = HEADINGS[2:]  # columns of numbers


@dataclass(frozen=True)
class Variant:
    """One way of having the model.

    accuracies: on the test split, shares from 0 to 1, one a seed. accuracy: their mean, std their standard deviation
    (None for one). low, high: 95 % interval of the mean over other seeds; of a single model, Wilson's over other
    images. bytes: of its ONNX file. milliseconds: of one image in ONNX Runtime, the best of some calls. Both None
    where it has no such form.
    """

    name: str
    model: str
    accuracies: tuple[float, ...]
    accuracy: float
    std: float | None
    low: float | None
    high: float | None
    parameters: int
    bytes: int | None
    milliseconds: float | None

    def cells(self) -> tuple[str, ...]:
        """The row in words, under `HEADINGS`."""
        spread = f" ± {100 * self.std:.2f}" if self.std is not None else ""
        return (
            self.name,
            self.model.removeprefix("timm:"),
            f"{100 * self.accuracy:.2f}{spread} %",
            "" if self.low is None or self.high is None else span(self.low, self.high),
            f"{self.parameters:,}",
            "" if self.bytes is None else f"{self.bytes / 1000:,.0f} kB",
            "" if self.milliseconds is None else f"{self.milliseconds:.2f} ms",
        )


def variant(
    name: str,
    *,
    model: str,
    accuracies: tuple[float, ...],
    images: int,
    parameters: int,
    bytes_: int | None = None,
    milliseconds: float | None = None,
) -> Variant:
    """A row from what was measured. images: of the test split."""
    mean = mean_over_seeds(accuracies)
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (mean.low, mean.high))
    if len(accuracies) == 1:
        low, high = share_interval(accuracies[0], images)
    std = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    return Variant(name, model, accuracies, mean.mean, std, low, high, parameters, bytes_, milliseconds)


@dataclass(frozen=True)
class Distillation:
    """A teacher, and students of one recipe without it and with it.

    seeds: the students', whose accuracies the rows hold in this order. gain: accuracy with the teacher less that
    without, by seeds (paired t) and by images (of these same students). notes: what a reader of the figures must know.
    """

    rows: tuple[Variant, ...]
    seeds: tuple[int, ...]
    by_seeds: Mean
    by_images: Mean
    test_images: int
    notes: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        return self.by_seeds.mean

    @property
    def p(self) -> float | None:
        """Over seeds where there are several that differ, else over images."""
        return self.by_images.p if self.by_seeds.p is None else self.by_seeds.p

    @property
    def alone(self) -> Variant:
        return next(row for row in self.rows if row.name == "student alone")

    @property
    def distilled(self) -> Variant:
        return next(row for row in self.rows if row.name == "student distilled")

    @property
    def headline(self) -> str:
        text = (
            f"Taught, the student reaches {100 * self.distilled.accuracy:.2f} % test accuracy; alone "
            f"{100 * self.alone.accuracy:.2f} %: {points(self.gain)}"
        )
        said = []
        for over, found in ((f"{len(self.seeds)} seeds", self.by_seeds), ("images", self.by_images)):
            if found.low is not None and found.high is not None and found.p is not None:
                said.append(f"over {over} {points_interval(found.low, found.high)}, {p_value(found.p)}")
        return f"{text} ({'; '.join(said)})." if said else f"{text}."

    def arrows(self) -> list[str]:
        """A line a seed: from the accuracy alone to the one with the teacher, to one scale."""
        pairs = list(zip(self.seeds, self.alone.accuracies, self.distilled.accuracies, strict=True))
        ends = [end for _, *both in pairs for end in both]
        low, span = min(ends), max(max(ends) - min(ends), 1e-9)
        lines = []
        for seed, before, after in pairs:
            start, stop = (round((end - low) / span * ARROW) for end in (before, after))
            between = "─" * max(abs(stop - start) - 1, 0)
            drawn = f"○{between}▶" if stop > start else f"◀{between}○" if stop < start else "○"
            where = " " * min(start, stop)
            numbers = f"{100 * before:.2f} → {100 * after:.2f} %"
            lines.append(f"seed {seed:<4} {where}{drawn}".ljust(ARROW + 14) + f"{numbers}  {points(after - before)}")
        return lines

    def frame(self) -> pd.DataFrame:
        """A row a variant."""
        return pd.DataFrame([vars(row) for row in self.rows])


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
        pairs = self.disagreement[np.triu_indices(len(self.disagreement), k=1)]
        return float(pairs.mean()) if len(pairs) else 0.0

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
        disagreement=(answers[:, None] != answers).mean(2),
        both_wrong=(~right[:, None] & ~right).mean(2),
    )
