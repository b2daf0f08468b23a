"""Runs on the embedded digits, trained for a moment in this process."""

from __future__ import annotations

from pathlib import Path

import torch

from lucidate.core.recipe import load_recipe
from lucidate.core.run import RunDir
from lucidate.data.batches import prepare
from lucidate.training.trainer import TrainJob, fit


def digits_run(folder: Path, *overrides: str, recipe: str = "digits") -> RunDir:
    """A trained run in `folder`, without predictions: its test split is unopened."""
    resolved, run = load_recipe(recipe, source="digits", overrides=list(overrides)), RunDir(folder)
    with run.claim():
        fit(TrainJob(resolved, run, prepare(resolved), torch.device("cpu")))
    return run
