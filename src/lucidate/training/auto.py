"""The recipe `auto`: what suits the images, chosen by their number, their size and their classes, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucidate.core.errors import WeightsError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe, load_recipe
from lucidate.data.pack import median_side
from lucidate.data.sources.find import open_source
from lucidate.models.build import require_weights

NAME = "auto"
ENOUGH = 20_000  # images of at most SMALL pixels: from there on, minutes are worth as much from scratch
SMALL = 48  # pixels a side that `fast` was made for
LARGEST = 64  # pixels a side, from scratch: four times as many as `fast` was made for are slow enough
SIDES = (32, 64, 96, 128)  # at which images are packed: the largest that their median reaches
SAMPLE = 500  # images whose size is looked at
MINUTE = 700  # images that a minute of transfer learning is given for: about a dozen passes on two cores
MINUTES = (1.0, 15.0)  # at least, at most
STEPS = 1_200  # of `fast`, on CIFAR-10: as many are taken on fewer images
UNEVEN = 3.0  # times as many images in the largest class as in the smallest: from there on, rare classes weigh more


@dataclass(frozen=True)
class Choice:
    """A shipped recipe, what is changed of it, and why, a sentence each."""

    recipe: str
    settings: tuple[str, ...]
    reasons: tuple[str, ...]


def resolve(source: str | None, *, overrides: Sequence[str], reporter: Reporter) -> Recipe:
    """The recipe that suits a source's images; the user's overrides come last. Says what was chosen, and why."""
    asked = load_recipe(NAME, source=source, overrides=overrides)
    spec = asked.data.source
    found = open_source(spec, reporter=reporter)
    side = asked.data.image_size or packed_side(median_side(found, sample=SAMPLE))
    counts = np.bincount(found.labels, minlength=len(found.class_names))
    choice = choose(counts, side=side, pretrained=has_pretrained())
    for reason in choice.reasons:
        reporter.say(f"auto: {reason}")
    return load_recipe(choice.recipe, source=spec, overrides=[*choice.settings, *overrides])


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


def choose(counts: np.ndarray, *, side: int, pretrained: bool) -> Choice:
    """A recipe for images of `counts` (K,) a class at `side` pixels; pretrained: whether there are such weights."""
    images = int(counts.sum())
    settings, reasons = [], []
    what = f"{images:,} images of {side} pixels"
    if pretrained and (images < ENOUGH or side > SMALL):
        minutes = float(np.clip(round(images / MINUTE, 1), *MINUTES))
        settings += [f"data.image_size={side}", f"train.minutes={minutes:g}", f"model.size={max(side, 96)}"]
        settings += ["augment.translate=0", "augment.crop=0.1"]  # three pixels, of whatever side
        reasons.append(
            f"transfer learning, since {what} teach a pretrained network more than one from scratch; "
            f"{minutes:g} min of training (another budget: --set train.minutes=N)"
        )
        recipe = "transfer"
    else:
        recipe, batch = "fast", int(np.clip(2 ** np.floor(np.log2(max(images / 40, 1))), 16, 500))
        epochs = int(np.clip(np.ceil(STEPS * batch / images), 13, 60))
        settings += [f"data.image_size={min(side, LARGEST)}", f"train.batch_size={batch}", f"train.epochs={epochs}"]
        why = "are enough to learn from" if pretrained else "must do: no pretrained weights are at hand"
        reasons.append(f"from scratch, since {what} {why}; {epochs} epochs")
    present = counts[counts > 0]
    if present.max() >= UNEVEN * present.min():
        settings.append("train.balance=weights")
        reasons.append(
            f"rare classes weigh more, since the largest has {present.max():,} images and the smallest "
            f"{present.min():,} (--set train.balance=none leaves it)"
        )
    return Choice(recipe, tuple(settings), tuple(reasons))
