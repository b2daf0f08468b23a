"""Runs of which only records are left: no model answers here, and their images are noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fakes import NAMES, random_predictions
from lucidate.core.recipe import Recipe
from lucidate.core.records import DataCard, ModelCard, RunCard, SplitCard
from lucidate.core.run import RunDir
from lucidate.data.splits import Splits

PACK = "0123456789abcdef" * 4


def photographs(count: int, *, side: int = 32, seed: int = 0, light: float = 1.0) -> NDArray[np.uint8]:
    """Coarse colored noise, each image of its own brightness and contrast."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(0, 1, (count, 4, 4, 3)).repeat(side // 4, axis=1).repeat(side // 4, axis=2)
    middle, spread = generator.normal(120, 25, (count, 1, 1, 1)), generator.uniform(20, 60, (count, 1, 1, 1))
    return (light * (middle + spread * coarse)).clip(0, 255).astype(np.uint8)


def recorded_run(folder: Path, *, views: str = "one", predicted: tuple[str, ...] = ("validation",)) -> RunDir:
    """A run without a model: its run card, weights that are no weights, predictions of 1,000 validation images."""
    run = RunDir(folder)
    RunCard(
        status="finished",
        name=folder.name,
        created="2026-01-02T03:04:05+00:00",
        seed=3,
        recipe=Recipe(predict={"views": views}),
        data=DataCard(
            source="photos/",
            path=None,
            dataset="photos",
            pack=PACK,
            images=1_500,
            image_size=32,
            flips=True,
            set_aside=(),
        ),
        classes=NAMES,
        split=SplitCard(scheme="official", requested="official", sizes={}),
        preprocess={"size": 32, "mean": [0.5, 0.5, 0.5]},
        model=ModelCard(name="compact", options={}, parameters=1, values=1),
        versions={},
        hardware={},
        threads=2,
        commit=None,
        command="lucidate run",
    ).save(run.card)
    run.weights.write_bytes(b"weights")
    Splits("official", np.arange(400), np.arange(400, 1_400), np.arange(1_400, 1_500)).save(
        run.splits, np.array([f"image/{row}" for row in range(1_500)])
    )
    table = random_predictions(1_000, skill=3.0, split="validation")
    tables = {"validation": table, "one-view": replace(table, logits=table.logits * 0.5)}
    for name in predicted:
        tables[name].save(run.one_view("validation") if name == "one-view" else run.predictions("validation"))
    return run
