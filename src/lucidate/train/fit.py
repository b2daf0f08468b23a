"""A recipe and its images → a run folder with weights, history and passport."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from lucidate.core import machine
from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import Recipe
from lucidate.core.records import DataCard, ModelCard, RunCard, SplitCard, jsonable
from lucidate.core.rundir import RunDir
from lucidate.data.batches import derived_seed
from lucidate.data.dataset import Dataset
from lucidate.models import build, parameter_count, place, save_weights, value_count
from lucidate.predict.infer import BATCH
from lucidate.train.loop import train_model

INITIAL = 2  # keeps the seed of the initial weights apart from those of steps


def default_device() -> torch.device:
    """The first GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    recipe: Recipe,
    dataset: Dataset,
    *,
    run: RunDir,
    device: torch.device | None = None,
    command: str = "",
    reporter: Reporter | None = None,
) -> RunCard:
    """Train by the recipe into a folder that the caller has claimed, and return the run's passport.

    The passport stands from the start, with status "training", so that a killed run can be told from a whole one.
    Raises RunError when the loss diverges; RecipeError for the model's options.
    """
    reporter, device = reporter or Silent(), device or default_device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(recipe.seed, INITIAL))
        model = build(recipe.model, len(dataset.pack.class_names))
    place(model, device)
    pack, splits = dataset.pack, dataset.splits
    card = RunCard(
        name=run.path.resolve().name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=recipe.seed,
        recipe=recipe,
        data=DataCard(
            source=pack.source,
            path=str(Path(pack.source).resolve()) if Path(pack.source).exists() else None,
            dataset=pack.dataset,
            pack=pack.hash,
            images=len(pack),
            image_size=pack.image_size,
            flips=pack.flips,
            set_aside=jsonable(pack.set_aside),
        ),
        classes=pack.class_names,
        split=SplitCard(scheme=splits.scheme, requested=recipe.data.split, sizes=splits.sizes),
        preprocess=dataset.preprocess.as_dict(),
        model=ModelCard(
            name=recipe.model.name,
            options=recipe.model.options,
            parameters=parameter_count(model),
            values=value_count(model),
        ),
        versions=machine.versions(),
        hardware=machine.hardware(accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None),
        threads=torch.get_num_threads(),
        commit=machine.commit(),
        command=command,
    )
    card.save(run.card)
    splits.save(run.splits, pack.ids)
    start = time.perf_counter()
    history = train_model(
        model,
        dataset.batches("train", batch_size=recipe.train.batch_size, device=device),
        validation=dataset.batches("validation", batch_size=BATCH, device=device),
        recipe=recipe,
        flips=pack.flips,
        reporter=reporter,
    )
    card = card.with_results(
        val_accuracy=max(history.val_accuracy) if recipe.train.restore_best else history.val_accuracy[-1],
        epochs=history.epochs,
        train_seconds=round(time.perf_counter() - start, 2),
    )
    history.save(run.history)
    save_weights(model, run.weights)
    card = card.model_copy(update={"status": "trained"})
    card.save(run.card)
    return card
