"""Two synthetic models on the same images, for the tests of a comparison's page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lucidate.analysis.comparison import Comparison, compare
from lucidate.core.records import Predictions
from lucidate.data.pack import Pack
from lucidate.report.site.comparison import build_comparison

HOSTILE = '<b>x</b> & "$y$" <script>alert(1)</script>'
WORDS = ("two layers, 99 parameters", "a table <i>")


@dataclass(frozen=True, eq=False)
class Pair:
    compared: Comparison
    pack: Pack

    def build(self, folder: Path) -> Path:
        return build_comparison(folder, self.compared, self.pack, about=WORDS)


def make_pair(classes: int = 10, images: int = 800, *, alike: bool = False, names: tuple[str, ...] = ()) -> Pair:
    """Two models on synthetic images, the second a little better; ids are not in the order of the rows."""
    generator = np.random.default_rng(classes + images)
    labels = np.arange(images, dtype=np.int64) % classes
    class_names = names or tuple(f"class {k}" for k in range(classes))
    ids = np.array([f"test/{row:05d}" for row in generator.permutation(images)])
    scores = generator.normal(0, 1, (images, classes))
    scores[np.arange(images), labels] += 1.5

    def table(noise: float, model: str) -> Predictions:
        logits = scores + noise * np.random.default_rng(1).normal(0, 1, scores.shape)
        rows = np.arange(images)
        return Predictions(ids, rows, labels, logits.astype(np.float32), class_names, "shapes", "test", model)

    order = generator.permutation(images)
    pack = Pack(
        path=Path("nowhere"),
        images=generator.integers(0, 256, (images, 8, 8, 3), dtype=np.uint8),
        labels=labels[order],
        ids=ids[order],
        given=np.full(images, "test"),
        class_names=class_names,
        dataset="shapes",
        source="shapes",
        hash="0",
        flips=False,
        set_aside=(),
    )
    first = table(1.5, HOSTILE if names else "weak")
    return Pair(compare(first, first if alike else table(0.3, "strong")), pack)
