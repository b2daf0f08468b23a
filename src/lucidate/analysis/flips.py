"""Which images does one model get right and the other wrong?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import count, percent
from lucidate.analysis.samples import Tiles


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
        return pd.DataFrame(
            {
                "id": self.first.ids,
                "true_class": names[self.first.labels],
                "answer_a": names[self.first.predicted],
                "confidence_a": self.first.confidence,
                "answer_b": names[self.second.predicted],
                "confidence_b": self.second.confidence,
                "true_class_probability_a": self.first.true_probability,
                "true_class_probability_b": self.second.true_probability,
                "change": self.change,
            }
        )
