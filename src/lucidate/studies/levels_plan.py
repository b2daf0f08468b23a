"""Which runs the levels are made of, and by which recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lucidate.core.errors import WeightsError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe, Section, apply_override, load_recipe, validated
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import open_pack
from lucidate.models.build import begins_with_weights, check, require_weights
from lucidate.studies.combine import Method

TITLES = {
    1: "Transfer learning",
    2: "Augmentation, schedule, weight decay",
    3: "Custom architecture",
    4: "Ensemble",
}
RECIPES = {1: ("level1_resnet50",), 2: ("level2_resnet50",), 3: ("level3_custom",)}
MEMBERS = ("level4_resnet50", "level4_efficientnet_b0", "level4_vit_tiny")
ENSEMBLE = "level4_ensemble"
TINY = 16  # pixels a side; of 8, a network that reduces its images eightfold is lost when they move by one
LEFT_OUT = ("crop=0.0", "trivial=false", "cutmix=0.0")


class LevelsRecipe(Section):
    """What `--set levels.…` may say."""

    train_size: int | None = Field(None, ge=1, description="training images, drawn by class; default: all")
    pretrained: bool | Literal["auto"] = Field(
        "auto", description="auto: the hub's weights where they can be had, else from scratch"
    )
    combine: Method = Field("softmax", description="how level 4 combines its members")


class _Overrides(Section):
    """`--set levels.…` as a whole."""

    levels: LevelsRecipe = LevelsRecipe()


@dataclass(frozen=True)
class Plan:
    """Everything that is to be run. recipes: by the name of the run's folder, in their order.

    notes: what a reader of the results must know of how they came about.
    """

    settings: LevelsRecipe
    recipes: dict[str, Recipe]
    notes: tuple[str, ...]

    def folder_of(self, name: str) -> str:
        """The run that stands for a recipe: of recipes that are the same in all but their name, the first."""
        return next(other for other, recipe in self.recipes.items() if recipe == self.recipes[name])


def make_plan(source: str, out: Path, *, overrides: Sequence[str], reporter: Reporter) -> Plan:
    """Resolve every level's recipe. overrides: "levels.a=b" for the levels, others for each recipe.

    Weights from the hub are fetched here, or given up here: a level then starts from scratch, unless
    `levels.pretrained=true` insists. What a run in `out` has begun with, it keeps.
    Raises RecipeError, UnknownNameError, WeightsError.
    """
    settings = _settings([item for item in overrides if item.startswith("levels.")])
    shared = [item for item in overrides if not item.startswith("levels.")]
    data = load_recipe(MEMBERS[0], source=source, overrides=shared).data
    side = open_pack(source, image_size=data.image_size, reporter=reporter).image_size
    if settings.train_size is not None:
        shared.append(f"data.train_size={settings.train_size}")
    if side < TINY:
        shared = [*(f"augment.{key}" for key in LEFT_OUT), *shared]
    recipes: dict[str, Recipe] = {}
    notes: list[str] = []
    reachable = settings.pretrained is not False
    for name in (*(recipe for level in RECIPES.values() for recipe in level), *MEMBERS):
        recipe = load_recipe(name, source=source, overrides=shared)
        if begins_with_weights(recipe.model) and not recipe.model.options.get("weights"):
            card = RunDir(out / name).card
            if card.exists():
                reachable = begins_with_weights(RunCard.load(card).recipe.model)
            elif reachable:
                try:
                    require_weights(recipe.model)
                except WeightsError as error:
                    if settings.pretrained is True:
                        raise
                    reachable = False
                    reporter.say(f"from scratch: {error}")
            if not reachable:
                recipe = load_recipe(name, source=source, overrides=[*shared, "model.pretrained=false"])
                notes = [
                    "No pretrained weights were at hand: every network began from scratch. Level 1 is then no transfer "
                    "learning, and large networks are at their weakest on few images and few epochs."
                ]
        check(recipe.model)
        recipes[name] = recipe
    if side < TINY:
        notes.append(f"Images of {side} pixels: without crops, TrivialAugment and CutMix, which they do not survive.")
    if settings.train_size is not None:
        notes.append(f"Trained on {settings.train_size:,} images only, with validation in proportion.")
    return Plan(settings, recipes, tuple(notes))


def _settings(overrides: Sequence[str]) -> LevelsRecipe:
    values: dict[str, Any] = {}
    for override in overrides:
        apply_override(values, override)
    return validated(_Overrides, values, name="--set").levels
