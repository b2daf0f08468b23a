"""Which runs the levels are made of, and by which recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from lucidate.core.errors import WeightsError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe, Section, apply_overrides, load_recipe, validated
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import open_pack
from lucidate.models.build import begins_with_weights, check, require_weights
from lucidate.studies.ensemble import Method

TITLES = {1: "Transfer learning", 2: "Augmentation, schedule, weight decay", 3: "Custom architecture", 4: "Ensemble"}
LEVELS = {1: "level1_resnet50", 2: "level2_resnet50", 3: "level3_custom"}
MEMBERS = ("level4_resnet50", "level4_efficientnet_b0", "level4_vit_tiny")
# Networks whose weights are installed, in place of those whose weights cannot be had; the last member is level 3's,
# which errs on other images than they do, and has been trained already.
SUBSTITUTES = {
    "level1_resnet50": "level1_lite2",
    "level2_resnet50": "level2_lite2",
    "level4_resnet50": "level2_lite2",
    "level4_efficientnet_b0": "level4_lite1",
    "level4_vit_tiny": "level3_custom",
}
SHARES = {1: 2.0, 2: 2.5, 3: 1.25, 4: 1.75}  # of a budget, by level; of level 4 for each member of its own
# What a budget leaves to predictions, galleries and reports: minutes, and minutes an image of the data set, which two
# cores take for six views at 96 pixels; at most this share of the budget.
GALLERIES, PREDICTION, MOST = 0.5, 1e-4, 0.2
LEAST = 0.1  # of a run's minutes, however late it is
LONGER = 10  # times the recipes' epochs, at most, where minutes end a training: few images are seen more often in them
ENSEMBLE = "level4_ensemble"
TINY = 16  # pixels a side; of 8, a network that reduces its images eightfold is lost when they move by one
LARGE = 48  # pixels a side; above, a network for 224 pixels needs no smaller steps, which would ask for much memory
LineUp = Literal["own", "substitutes", "scratch"]
SUBSTITUTED = (
    "EfficientNet-Lite2 and Lite1, whose ImageNet weights are at hand, take the places of ResNet50, EfficientNet-B0 "
    "and ViT-Tiny, whose weights could not all be had; level 3's network is the ensemble's third member."
)
SCRATCH = (
    "every network began from scratch. Level 1 is then no transfer learning, and large networks are at their weakest "
    "on few images and few epochs."
)
FROM_SCRATCH = f"No pretrained weights were at hand: {SCRATCH}"
AS_ASKED = f"By levels.pretrained=false {SCRATCH}"
LEFT_OUT = ("crop=0.0", "trivial=false", "cutmix=0.0")


class LevelsRecipe(Section):
    """What `--set levels.…` may say."""

    train_size: int | None = Field(None, ge=1, description="training images, drawn by class; default: all")
    pretrained: bool | Literal["auto"] = Field(
        "auto", description="auto: weights where they can be had, of the networks or of substitutes, else from scratch"
    )
    minutes: float | None = Field(None, gt=0, description="budget of all levels together; default: the recipes' epochs")
    combine: Method = Field("softmax", description="how level 4 combines its members")


class _Overrides(Section):
    """`--set levels.…` as a whole."""

    levels: LevelsRecipe = LevelsRecipe()


@dataclass(frozen=True)
class Plan:
    """Everything that is to be run. recipes: by the name of the run's folder, in their order.

    levels: recipe of each level but the last. members: of the last level's ensemble. notes: what a reader of the
    results must know of how they came about.
    """

    settings: LevelsRecipe
    levels: dict[int, str]
    members: tuple[str, ...]
    recipes: dict[str, Recipe]
    notes: tuple[str, ...]

    def folder_of(self, name: str) -> str:
        """The run that stands for a recipe: of recipes that are the same in all but their name, the first."""
        return next(other for other, recipe in self.recipes.items() if recipe == self.recipes[name])

    def minutes_left(self, name: str, *, spent: Mapping[str, float]) -> float:
        """Minutes of training for a run of a plan with a budget: its own, or fewer where those before it were late.

        spent: how many minutes of the budget each run before it took, predictions included.
        """
        own = {run: recipe.train.minutes or 0.0 for run, recipe in self.recipes.items() if self.folder_of(run) == run}
        planned = sum(minutes for run, minutes in own.items() if run not in spent)
        budget, trained = self.settings.minutes or 0.0, sum(own.values())
        reserve = (budget - trained) * planned / trained  # for the predictions of those that are to come
        left = budget - sum(spent[run] for run in own if run in spent) - reserve
        return max(round(own[name] * min(max(left / planned, LEAST), 1), 3), 0.001)


def make_plan(source: str, out: Path, *, overrides: Sequence[str], reporter: Reporter) -> Plan:
    """Resolve every level's recipe. overrides: "levels.a=b" for the levels, others for each recipe.

    Weights from the hub are fetched here, or given up here; a plan that runs in `out` have begun with is kept.
    Raises RecipeError, UnknownNameError, WeightsError.
    """
    settings = _settings([item for item in overrides if item.startswith("levels.")])
    shared = [item for item in overrides if not item.startswith("levels.")]
    own = (*LEVELS.values(), *MEMBERS)
    data = load_recipe(own[0], source=source, overrides=shared).data
    pack = open_pack(source, image_size=data.image_size, reporter=reporter)
    side = pack.image_size
    notes: list[str] = []
    if settings.train_size is not None:
        shared.append(f"data.train_size={settings.train_size}")
        notes.append(f"Trained on {settings.train_size:,} images only, with validation in proportion.")
    if side < TINY:
        shared = [*(f"augment.{key}" for key in LEFT_OUT), *shared]
        notes.append(f"Images of {side} pixels: without crops, TrivialAugment and CutMix, which they do not survive.")
    recipes = {name: load_recipe(name, source=source, overrides=shared) for name in own}
    chosen, reason = line_up(recipes, out, wanted=settings.pretrained)
    if reason:
        reporter.say(reason)
        notes.insert(0, reason)
    names = {name: SUBSTITUTES.get(name, name) if chosen == "substitutes" else name for name in own}
    levels, members = {level: names[name] for level, name in LEVELS.items()}, tuple(names[name] for name in MEMBERS)
    level_of = {**dict.fromkeys(members, 4), **{name: level for level, name in levels.items()}}
    level_of["level4_resnet50"] = 2  # it is level 2's recipe, and takes its run
    shares = {name: SHARES[level] for name, level in level_of.items() if name != "level4_resnet50"}
    planned: dict[str, Recipe] = {}
    for name in dict.fromkeys(names.values()):
        extra = [*shared]
        if settings.minutes is not None:
            minutes = trained_minutes(settings.minutes, len(pack)) * SHARES[level_of[name]] / sum(shares.values())
            extra.append(f"train.minutes={minutes:.3f}")
        recipe = load_recipe(name, source=source, overrides=extra)
        if settings.minutes is not None and not any(item.startswith("train.epochs") for item in shared):
            longer = ((key, LONGER * getattr(recipe.train, key)) for key in ("epochs", "warmup_epochs"))
            extra += [f"train.{key}={value}" for key, value in longer]
        if chosen == "scratch" and begins_with_weights(recipe.model):
            extra.append("model.pretrained=false")
        if recipe.model.options.get("fit") == "native" and side > LARGE:
            extra += ["model.fit=upsample", f"model.size={side}"]
        planned[name] = load_recipe(name, source=source, overrides=extra)
        check(planned[name].model, start_size=planned[name].train.start_size)
    return Plan(settings, levels, members, planned, tuple(notes))


def trained_minutes(budget: float, images: int) -> float:
    """How much of a budget in minutes all trainings have together. images: of the data set."""
    return budget - min(GALLERIES + PREDICTION * images, MOST * budget)


def line_up(recipes: Mapping[str, Recipe], out: Path, *, wanted: bool | Literal["auto"]) -> tuple[LineUp, str]:
    """Whose weights the levels begin with, and why where they are not the challenge's own networks'.

    Networks whose weights are at hand take the places of those whose weights cannot be had: from scratch on few images
    and few epochs, large networks are at their weakest. Raises WeightsError where `wanted` insists.
    """
    first = LEVELS[1]
    card = RunDir(out / first).card
    if wanted is False:
        return "scratch", AS_ASKED
    if RunDir(out / SUBSTITUTES[first]).card.exists():
        return "substitutes", SUBSTITUTED
    if card.exists():
        kept = begins_with_weights(RunCard.load(card).recipe.model)
        return ("own", "") if kept else ("scratch", FROM_SCRATCH)
    try:
        _require(recipes.values())
    except WeightsError:
        if wanted is True:
            raise
    else:
        return "own", ""
    try:
        _require(load_recipe(name) for name in SUBSTITUTES.values())
    except WeightsError:
        return "scratch", FROM_SCRATCH
    return "substitutes", SUBSTITUTED


def _require(recipes: Iterable[Recipe]) -> None:
    """Raise WeightsError where the weights of one cannot be had."""
    for recipe in recipes:
        if begins_with_weights(recipe.model) and not recipe.model.options.get("weights"):
            require_weights(recipe.model)


def _settings(overrides: Sequence[str]) -> LevelsRecipe:
    return validated(_Overrides, apply_overrides({}, overrides), name="--set").levels
