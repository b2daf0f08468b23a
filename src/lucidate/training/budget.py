"""A training that has so many minutes: what they allow, how its images grow meanwhile, and how far it is, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lucidate.core.errors import RecipeError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe, TrainRecipe
from lucidate.core.records import History
from lucidate.data.batches import Dataset
from lucidate.models.build import build, to_device
from lucidate.models.registry import Resizing
from lucidate.training.precision import step_seconds, working_type

PASSES = 8  # over the training images, which are worth more than larger images are
TURNS = 3  # of a step that is timed; the best counts
GROWN = 0.6  # share of the training after which images have their full size
SIDE_STEP = 16  # pixels by which they grow: each size prepares its kernels anew


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
    return (
        f"{settings.minutes:g} minutes: {rate:,.0f} images/s are about {epochs:.1f} epochs of {images:,} images{grows}"
        f"; the {settings.schedule} schedule ends with them"
    )


@contextmanager
def growing(model: nn.Module) -> Iterator[Callable[[int | None, float], None]]:
    """A function that lets a model see its images smaller, early in a training; its own size is given back.

    Small images are learned from in a fraction of the time (M. Tan and Q. Le, "EfficientNetV2", arXiv:2104.00298).
    """
    own: int = getattr(model, "size", None) or 0  # 0: it has none, and start_size has been refused

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


def with_size(recipe: Recipe, dataset: Dataset, *, device: torch.device, reporter: Reporter) -> Recipe:
    """The recipe with the largest of `train.sizes` that leaves enough passes within its minutes, or the smallest.

    A `model.size` that is given stays. Steps are timed at the smallest side; they take as many times as long as an
    image has pixels. Raises RecipeError.
    """
    settings, options = recipe.train, recipe.model.options
    if settings.sizes is None or options.get("size"):
        return recipe
    if settings.minutes is None or options.get("fit") != "upsample" or not settings.sizes:
        raise RecipeError(
            "train.sizes: expected sides in pixels, with train.minutes and model.fit = 'upsample', received "
            f"{list(settings.sizes)} with train.minutes = {settings.minutes}, model.fit = {options.get('fit')!r}"
        )
    smallest, count = min(settings.sizes), len(dataset.splits.train)
    sized = {size: recipe.model.model_copy(update={"size": size}) for size in sorted(settings.sizes, reverse=True)}
    side = dataset.pack.image_size
    with torch.random.fork_rng(devices=[]):
        model = build(sized[smallest], len(dataset.pack.class_names), image_size=side, initial=False)
    precisions = ("float32", "bfloat16") if settings.precision == "auto" else (settings.precision,)
    images = torch.zeros(settings.batch_size, 3, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    to_device(model, device).to(working_type(settings.precision)).train()
    seconds = min(step_seconds(model, images, precision) for _ in range(1 + TURNS) for precision in precisions)
    passes = {
        size: 60 * settings.minutes * settings.batch_size / (seconds * (size / smallest) ** 2) / count for size in sized
    }
    chosen = next((size for size in sized if passes[size] >= PASSES), smallest)
    reporter.say(
        f"images of {chosen} pixels, of {sorted(sized)}: {settings.minutes:g} minutes are about {passes[chosen]:.1f} "
        f"passes over {count:,} of them"
    )
    return recipe.model_copy(update={"model": sized[chosen]})
