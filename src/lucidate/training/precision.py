"""How a training computes: to the same bits each time, in the precision and at the size that suit this machine."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import RecipeError
from lucidate.core.machine import processes
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe
from lucidate.data.batches import Dataset
from lucidate.models.build import build, to_device
from lucidate.training.depthwise import quick_gradients
from lucidate.training.optim import let_learn

TURNS = 5  # of one step each; the best counts, since other work only ever slows a step down
PASSES = 5  # over the training images, which are worth more than larger images are (bench/LOG.md)
# What is changed of a recipe by how often a budget lets the images be seen.
Changes = Mapping[str, Mapping[str, Any]]
MANY: Changes = {"augment": {"trivial": False, "mixup": 0.0, "cutmix": 0.0}}  # seldom: many images
FEW: Changes = {"train": {"start_size": None}}  # often
GAIN = 1.1  # how much faster bfloat16 must be: less is noise, and not worth its rounding


@contextmanager
def deterministic() -> Iterator[None]:
    """Reproducible kernels, and torch's global generators borrowed and given back."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    choices: Any = torch.utils.deterministic  # its one attribute is not declared
    filling = choices.fill_uninitialized_memory
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        # Warn only: CUDA has no deterministic version of a few operations, and a run there is better than none.
        torch.use_deterministic_algorithms(True, warn_only=True)
        # It would also fill every new tensor, to show up reads of memory that nobody wrote: a pass over it each time.
        choices.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            choices.fill_uninitialized_memory = filling


def casting(precision: str, device: torch.device) -> torch.autocast:
    """Run convolutions and matrix products in this precision; weights, statistics and losses stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def working_type(precision: str) -> torch.dtype:
    """Of weights, statistics, inputs and losses: float32, but where all is to be float64."""
    return torch.float64 if precision == "float64" else torch.float32


def choose_precision(
    recipe: Recipe,
    model: nn.Module,
    *,
    image_size: int,
    device: torch.device,
    reporter: Reporter,
    processes: int = 1,
) -> str:
    """The recipe's, or for "auto" whichever of float32 and bfloat16 takes a training step sooner. The model stays as
    it is."""
    settings = recipe.train
    if settings.precision != "auto":
        return settings.precision
    trial = copy.deepcopy(model)
    let_learn(trial, recipe, frozen=settings.thaw > 0)
    batch = max(settings.batch_size // processes, 2)  # this process's part
    images = torch.randn(batch, 3, image_size, image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    # A processor that only emulates bfloat16 takes many times as long: a few images show it in a moment.
    best = dict.fromkeys(("float32", "bfloat16"), float("inf"))
    for size in (min(16, batch), batch):
        for turn in range(TURNS):
            for precision in best:
                seconds = step_seconds(trial, images[:size], precision, compiled=settings.compile)
                # The first turn of a shape prepares kernels.
                best[precision] = seconds if turn < 2 else min(best[precision], seconds)
        if best["bfloat16"] > 3 * best["float32"]:
            break
    gain = best["float32"] / best["bfloat16"]
    chosen = "bfloat16" if gain >= GAIN else "float32"
    reporter.say(f"precision: {chosen} (a step in bfloat16 is {gain:.2f} times as fast as in float32 here)")
    return chosen


def with_budget(
    recipe: Recipe, dataset: Dataset, *, asked: Collection[str] = (), device: torch.device, reporter: Reporter
) -> Recipe:
    """The recipe with what its minutes suffice for: a size of `train.sizes`, and what `train.passes` tells apart.

    The size is the largest that leaves enough passes over the images, else the smallest, which it is without a budget;
    a `model.size` that is given stays. asked: keys such as "augment.mixup" that stay as they are, since the user set
    them. Raises RecipeError, also where several processes train together, whose clocks would choose differently, and
    no size is given.
    """
    settings, options, count = recipe.train, recipe.model.options, len(dataset.splits.train)
    if settings.sizes is None:
        return recipe
    own, fit, smallest = options.get("size"), options.get("fit"), min(settings.sizes, default=0)
    if fit != "upsample" or not smallest:
        raise RecipeError(
            "train.sizes: expected sides in pixels, with model.fit = 'upsample', received "
            f"{list(settings.sizes)} with model.fit = {fit!r}"
        )
    together = settings.minutes is not None and processes()[1] > 1
    if together and not own:
        raise RecipeError(
            "train.sizes: expected one process, which times its steps, received several that train together; "
            f"set model.size, such as {smallest}"
        )
    if settings.minutes is None or together:
        passes = {int(own or smallest): float(PASSES if together else settings.epochs)}  # several have many images
    else:
        passes = timed_passes(recipe, dataset, sides=[int(own)] if own else settings.sizes, device=device)
    size = max((side for side in passes if passes[side] >= PASSES), default=min(passes))
    few = settings.passes is not None and passes[size] >= settings.passes
    changes = {} if settings.passes is None else differing(recipe, FEW if few else MANY, asked=asked)
    if settings.minutes is not None:
        about = "" if together else f" are about {passes[size]:.1f} passes over {count:,} images"
        left_out = [key for keys in changes.values() for key in keys]
        how = f", too {'many' if few else 'few'} for {', '.join(left_out)}, which is left out" if left_out else ""
        reporter.say(f"images of {size} pixels: {settings.minutes:g} min{about}{how}")
    return changed(changed(recipe, changes), {"model": {"size": size}})


def timed_passes(recipe: Recipe, dataset: Dataset, *, sides: Sequence[int], device: torch.device) -> dict[int, float]:
    """How often a budget lets all training images be seen, by their side in pixels, by the layers that learn at first.

    Steps are timed at the smallest; they take as many times as long as an image has pixels.
    """
    settings, packed, smallest = recipe.train, dataset.pack.image_size, min(sides)
    assert settings.minutes is not None
    with torch.random.fork_rng(devices=[]):
        small = changed(recipe, {"model": {"size": smallest}}).model
        model = build(small, len(dataset.pack.class_names), image_size=packed, initial=False)
    precisions = ("float32", "bfloat16") if settings.precision == "auto" else (settings.precision,)
    images = torch.zeros(settings.batch_size, 3, packed, packed, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    let_learn(to_device(model, device).to(working_type(settings.precision)), recipe, frozen=settings.thaw > 0)
    compiled = settings.compile
    seconds = min(step_seconds(model, images, p, compiled=compiled) for _ in range(TURNS) for p in precisions)
    passes = 60 * settings.minutes * settings.batch_size / seconds / len(dataset.splits.train)
    return {side: passes * (smallest / side) ** 2 for side in sides}


def chosen_before(recipe: Recipe, kept: Recipe, *, asked: Collection[str] = ()) -> Recipe:
    """The recipe with what `with_budget` chose when the training began, of which `kept` tells: steps may take another
    time now. asked: as there."""
    if not recipe.model.options.get("size"):
        recipe = changed(recipe, {"model": {"size": kept.model.options.get("size")}})
    if recipe.train.passes is None:
        return recipe
    for section, keys in (*MANY.items(), *FEW.items()):
        left_out = {key: value for key, value in keys.items() if getattr(getattr(kept, section), key) == value}
        recipe = changed(recipe, differing(recipe, {section: left_out}, asked=asked))
    return recipe


def differing(recipe: Recipe, changes: Changes, *, asked: Collection[str]) -> Changes:
    """Of some changes those that would change the recipe, and that nobody asked to be otherwise."""
    return {
        section: {
            key: value
            for key, value in keys.items()
            if getattr(getattr(recipe, section), key) != value and f"{section}.{key}" not in asked
        }
        for section, keys in changes.items()
    }


def changed(recipe: Recipe, values: Changes) -> Recipe:
    """The recipe with other values, by section and key."""
    update = {section: getattr(recipe, section).model_copy(update=dict(keys)) for section, keys in values.items()}
    return recipe.model_copy(update=update)


def step_seconds(model: nn.Module, images: Tensor, precision: str, *, compiled: bool = False) -> float:
    """Seconds of one forward and backward pass, run eagerly. compiled: whether the training goes by torch.compile,
    without the quick gradients."""
    _wait(images.device)
    start = time.perf_counter()
    with casting(precision, images.device), quick_gradients(images.device, compiled=compiled):
        logits = model(images)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
    _wait(images.device)
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
