"""Synthetic runs: smooth random images and plausible logits, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lucidate.analysis.findings import Findings, Images, analyze
from lucidate.core.records import History, Predictions
from lucidate.report.site.gallery import About, build_gallery

HOSTILE = '<b>x</b> & "$y$" <script>alert(1)</script>'
ABOUT = About(
    title="shapes <i>",
    model="compact",
    facts=(("Seed", "0"), ("Source", "<script>alert(2)</script>")),
    notes=("5 images were set aside & never seen.",),
)


@dataclass(frozen=True, eq=False)
class Case:
    predictions: Predictions
    findings: Findings
    pixels: NDArray[np.uint8]

    def build(self, folder: Path) -> Path:
        return build_gallery(folder, self.predictions, self.findings, self.pixels, about=ABOUT)


@cache
def make_case(
    classes: int,
    images: int,
    *,
    perfect: bool = False,
    history: bool = True,
    names: tuple[str, ...] | None = None,
    side: int = 32,
) -> Case:
    generator = np.random.default_rng(classes + images)
    labels = np.arange(images, dtype=np.int64) % classes
    logits = generator.normal(0, 1, (images, classes))
    logits[np.arange(images), labels] += 30 if perfect else 2.5
    # Coarse noise, enlarged: it compresses about as photographs do.
    coarse = generator.integers(0, 256, (images, 4, 4, 3), dtype=np.uint8)
    pixels = coarse.repeat(side // 4, axis=1).repeat(side // 4, axis=2)
    ids = np.array([f"test/{row:05d}" for row in range(images)])
    names = names or tuple(
        f"a class with the rather long name number {k}" if k % 3 else f"c{k}" for k in range(classes)
    )
    rows = np.arange(images)
    predictions = Predictions(ids, rows, labels, logits.astype(np.float32), names, "shapes", "test", "compact")
    half = images // 2
    splits = {"train": rows[:half], "test": rows[half:]}
    data = Images({s: ids[r] for s, r in splits.items()}, splits, {s: labels[r] for s, r in splits.items()})
    accuracy, loss = (0.4, 0.6, 0.7), (1.5, 1.0, 0.8)
    curves = History(accuracy, loss, (0.45, 0.65, 0.6), (1.4, 0.9, 1.0), (1e-3,) * 3, (2.0,) * 3)
    return Case(predictions, analyze(predictions, history=curves if history else None, images=data), pixels)


@pytest.fixture(scope="session")
def case() -> Callable[..., Case]:
    return make_case


@pytest.fixture(scope="session")
def hostile_case() -> Case:
    return make_case(3, 240, names=(HOSTILE, "line\u2028break\nand $ one", "Käse → 猫"), side=8)


@pytest.fixture(scope="session")
def hostile_gallery(hostile_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_case.build(tmp_path_factory.mktemp("hostile") / "gallery").parent


@pytest.fixture(scope="session")
def perfect_gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that makes no mistake, without a training history."""
    return make_case(4, 80, perfect=True, history=False).build(tmp_path_factory.mktemp("perfect") / "gallery").parent


@pytest.fixture(scope="session")
def large_case() -> Case:
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return make_case(10, 10_000, names=names)


@pytest.fixture(scope="session")
def gallery(large_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of 10,000 predictions, as large as CIFAR-10's."""
    return large_case.build(tmp_path_factory.mktemp("site") / "gallery").parent
