"""How far a training is, and what follows: its learning rate, the size of its images, its end; and all this in words.

Pure functions of the step and of the history, so that they hold no state. A budget in minutes ends the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import cos, pi

from torch import nn

from lucidate.core.recipe import TrainRecipe
from lucidate.core.records import History
from lucidate.models.registry import Resizing

FITTING = ("cosine", "linear")  # schedules that end with the training
GROWN = 0.6  # share of the training after which images have their full size
SIDE_STEP = 16  # pixels by which they grow: each size prepares its kernels anew


def learning_rate(recipe: TrainRecipe, *, step: float, steps_per_epoch: int, val_accuracy: Sequence[float]) -> float:
    """The rate of one step, counted from 0 over the whole training; val_accuracy: of the epochs so far."""
    if recipe.schedule == "plateau":
        return recipe.lr * recipe.plateau_factor ** plateau_cuts(val_accuracy, recipe.plateau_patience)
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        return recipe.lr * min((step + 1) / warmup, 1)
    if recipe.schedule == "constant":
        return recipe.lr
    progress = (step - warmup) / max(recipe.epochs * steps_per_epoch - warmup, 1)
    return recipe.lr * (1 - progress if recipe.schedule == "linear" else 0.5 * (1 + cos(pi * progress)))


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


def ended(history: History, settings: TrainRecipe) -> bool:
    """Whether the training has had its epochs or its minutes, or learns nothing more."""
    spent = settings.minutes is not None and sum(history.epoch_seconds) >= 60 * settings.minutes
    return spent or history.epochs >= settings.epochs or stopped_early(history, settings.early_stop)


def stopped_early(history: History, patience: int | None) -> bool:
    """Whether the validation accuracy has not had a new best for `patience` epochs."""
    return patience is not None and history.epochs > 0 and epochs_since_best(history.val_accuracy) >= patience


@contextmanager
def growing(model: nn.Module) -> Iterator[Callable[[int | None, float], None]]:
    """A function that lets a model see its images smaller, early in a training; its own size is given back.

    Small images are learned from in a fraction of the time (M. Tan and Q. Le, "EfficientNetV2", arXiv:2104.00298).
    """
    own: int = getattr(model, "size", None) or 0  # 0: it has none, and start_size is refused

    def grow(first: int | None, share: float) -> None:
        if first is not None and isinstance(model, Resizing):
            model.size = side_at(share, first=first, last=own)

    try:
        yield grow
    finally:
        if own and isinstance(model, Resizing):
            model.size = own


def side_at(share: float, *, first: int, last: int) -> int:
    """The side in pixels at a share of the training: from the first to the last in steps of 16, then that one."""
    grown = first + (last - first) * min(share / GROWN, 1)
    return last if share >= GROWN else min(int(grown // SIDE_STEP) * SIDE_STEP, last)


def epoch_name(epoch: int, settings: TrainRecipe) -> str:
    """An epoch, counted from 0, in words; how many there will be is known where no budget ends them."""
    return f"epoch {epoch + 1}" if settings.minutes is not None else f"epoch {epoch + 1}/{settings.epochs}"


def epoch_line(history: History, settings: TrainRecipe, *, images: int) -> str:
    """One finished epoch in words, with the time that the rest will take if none stops early."""
    spent = sum(history.epoch_seconds)
    left = (settings.epochs - history.epochs) * spent / history.epochs
    if settings.minutes is not None:
        left = min(left, 60 * settings.minutes - spent)
    remaining = f", {left // 60:.0f} min {left % 60:02.0f} s left" if left >= 0.5 else ""
    return (
        f"{epoch_name(history.epochs - 1, settings)}: loss {history.loss[-1]:.3f}, "
        f"accuracy {history.accuracy[-1]:.4f}, "
        f"validation loss {history.val_loss[-1]:.3f}, accuracy {history.val_accuracy[-1]:.4f}, "
        f"lr {history.learning_rate[-1]:.2g}, {images / history.epoch_seconds[-1]:,.0f} images/s, "
        f"{history.epoch_seconds[-1]:.1f} s{remaining}"
    )


def budget_line(settings: TrainRecipe, rate: float, *, images: int) -> str:
    """What a budget allows at the rate of the first steps, in images a second."""
    assert settings.minutes is not None
    epochs = min(60 * settings.minutes * rate / images, settings.epochs)
    grows = f", fewer as images grow from {settings.start_size} pixels" if settings.start_size else ""
    falls = f"; the {settings.schedule} schedule ends with them" if settings.schedule in FITTING else ""
    about = f"{rate:,.0f} images/s are about {epochs:.1f} epochs of {images:,} images"
    return f"{settings.minutes:g} min: {about}{grows}{falls}"
