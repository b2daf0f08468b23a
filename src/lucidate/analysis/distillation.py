"""What did a teacher bring its student?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lucidate.analysis.formatting import p_value, points, points_interval
from lucidate.analysis.statistics import Mean, mean_over_seeds, wilson_interval

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
            "" if self.low is None or self.high is None else f"{100 * self.low:.1f}–{100 * self.high:.1f} %",
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
        low, high = (float(end) for end in wilson_interval(round(accuracies[0] * images), images))
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
        seeds, images = self.by_seeds, self.by_images
        said = []
        if seeds.low is not None and seeds.high is not None and seeds.p is not None:
            said.append(f"over {len(self.seeds)} seeds {points_interval(seeds.low, seeds.high)}, {p_value(seeds.p)}")
        if images.low is not None and images.high is not None and images.p is not None:
            said.append(f"over images {points_interval(images.low, images.high)}, {p_value(images.p)}")
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
