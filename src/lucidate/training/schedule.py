"""The learning rate, and when to stop: pure functions of the step and of the history, so they hold no state."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi

from lucidate.core.recipe import TrainRecipe


def learning_rate(recipe: TrainRecipe, *, step: float, steps_per_epoch: int, val_accuracy: Sequence[float]) -> float:
    """The rate of one step, counted from 0 over the whole training; val_accuracy: of the epochs so far."""
    if recipe.schedule == "plateau":
        return recipe.lr * recipe.plateau_factor ** plateau_cuts(val_accuracy, recipe.plateau_patience)
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "linear":
        return recipe.lr * (1 - (step - warmup) / max(recipe.epochs * steps_per_epoch - warmup, 1))
    progress = (step - warmup) / max(recipe.epochs * steps_per_epoch - warmup, 1)
    return recipe.lr * 0.5 * (1 + cos(pi * progress))


def plateau_cuts(val_accuracy: Sequence[float], patience: int) -> int:
    """How often the rate has been cut: once for every `patience` epochs in a row without a new best."""
    best, waited, cuts = float("-inf"), 0, 0
    for value in val_accuracy:
        best, waited = (value, 0) if value > best else (best, waited + 1)
        if waited == patience:
            cuts, waited = cuts + 1, 0
    return cuts


def epochs_since_best(val_accuracy: Sequence[float]) -> int:
    """Epochs after the best one, the first of equals; 0 when the last epoch is the best."""
    return len(val_accuracy) - 1 - max(range(len(val_accuracy)), key=lambda epoch: val_accuracy[epoch])
