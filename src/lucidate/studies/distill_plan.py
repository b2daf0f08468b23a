"""What a distillation is made of: the student's recipe, its images, and whether this teacher may teach it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lucidate.core.atomic import sha256
from lucidate.core.errors import RecipeError, RunError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe, load_recipe
from lucidate.core.records import RunCard
from lucidate.core.registry import ENSEMBLE
from lucidate.core.run import RunDir
from lucidate.data.batches import Dataset
from lucidate.data.pack import Pack
from lucidate.data.splits import divide, split_seed
from lucidate.training.auto import is_auto
from lucidate.training.job import open_images
from lucidate.training.teacher import class_order, require_teacher


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that can be refused has been looked at, and no folder has been made yet.

    recipe: of the student that is taught by the first seed. notes: what a reader of the results must know.
    """

    teacher: RunDir
    card: RunCard
    recipe: Recipe
    dataset: Dataset
    seeds: tuple[int, ...]
    notes: tuple[str, ...]

    def recipe_of(self, seed: int, *, taught: bool, precision: str | None = None) -> Recipe:
        """One student's recipe: alone and taught differ in the teacher only. precision: in place of the recipe's."""
        distill = self.recipe.distill if taught else self.recipe.distill.model_copy(update={"teacher": None})
        train = self.recipe.train.model_copy(update={"precision": precision} if precision else {})
        return self.recipe.model_copy(update={"seed": seed, "distill": distill, "train": train})


def make_plan(
    teacher: RunDir, recipe: str | Path, *, seeds: int, source: str | None, overrides: Sequence[str], reporter: Reporter
) -> Plan:
    """Resolve the students' recipe and open their images.

    Raises RunError for a teacher that is unfinished, of other classes, or trained on images that are to judge its
    students; RecipeError, SourceError, WeightsError.
    """
    card = RunCard.load(RunDir.open(teacher.path).card)
    if seeds < 1:
        raise RunError(f"--seeds: expected 1 or more, received {seeds}")
    if is_auto(recipe):
        raise RecipeError("recipe: expected one of a certain model, received auto, which chooses one; such as edge")
    student = student_recipe(card, recipe, source=source, overrides=overrides)
    if student.train.sizes and not student.model.options.get("size"):
        raise RecipeError(
            f"train.sizes: expected students of one size, received {student.train.sizes}; set model.size to one of them"
        )
    named = student.distill.teacher or sha256(teacher.weights)
    student = student.model_copy(
        update={
            "distill": student.distill.model_copy(update={"teacher": named}),
            # Noted even where it is the first student's own seed, by which the others' images are divided, too.
            "data": student.data.model_copy(update={"seed": split_seed(student)}),
        }
    )
    require_teacher(student.distill, teacher)
    dataset = open_images(student, reporter=reporter)
    class_order(card, dataset.pack.class_names)
    require_unseen(card, dataset)
    all_seeds = tuple(student.seed + position for position in range(seeds))
    return Plan(teacher, card, student, dataset, all_seeds, notes_on(card, dataset))


def student_recipe(card: RunCard, recipe: str | Path, *, source: str | None, overrides: Sequence[str]) -> Recipe:
    """The students' recipe: on the teacher's images and division of them, unless overrides say otherwise.

    Of the recipe's own [data], train_size and image_size hold; where it has none, the teacher's.
    """
    theirs, stated = card.recipe.data, load_recipe(recipe).data
    if not card.data.pack:  # a model from elsewhere that brings no images
        return load_recipe(recipe, source=source, overrides=overrides)
    path = card.data.path
    values = {
        "source": path if path and Path(path).exists() else card.data.source,
        "name": theirs.name,
        "split": theirs.split,
        "val_fraction": theirs.val_fraction,
        "seed": split_seed(card.recipe),
        "train_size": stated.train_size or theirs.train_size,
        # Models from elsewhere have the size that they want, not the one that the images ask for.
        "image_size": stated.image_size or (None if card.origin else theirs.image_size),
    }
    # JSON's scalars are TOML's.
    inherited = [f"data.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value]
    inherited.append(f"data.seed={values['seed']}")  # 0, too
    return load_recipe(recipe, source=source, overrides=[*inherited, *overrides])


def require_unseen(card: RunCard, dataset: Dataset) -> None:
    """Refuse to judge students by images that their teacher was trained on. Raises RunError."""
    pack = dataset.pack
    if card.origin or not same_images(card, pack):
        return  # trained elsewhere, or on other images: nobody can say
    learned = divide(pack, card.recipe).train
    for split in ("validation", "test"):
        rows = dataset.splits.rows(split)
        if seen := int(np.isin(rows, learned).sum()):
            raise RunError(
                f"data: expected {split} images that the teacher was not trained on, received {len(rows):,}, of which "
                f"it was trained on {seen:,}; leave data.split, data.val_fraction and data.seed as the teacher's"
            )


def same_images(card: RunCard, pack: Pack) -> bool:
    """Whether a run was made from these images; in another size, their name and number have to do."""
    if card.data.image_size == pack.image_size:
        return card.data.pack == pack.hash
    return (pack.dataset, len(pack)) == (card.data.dataset, card.data.images)


def notes_on(card: RunCard, dataset: Dataset) -> tuple[str, ...]:
    """What the figures alone do not say."""
    notes = []
    if card.origin:
        notes.append("The teacher was trained elsewhere: nobody can say whether it has seen the students' test images.")
    theirs, ours = card.split.sizes.get("train", 0), dataset.splits.sizes["train"]
    if theirs > ours and not card.origin:
        notes.append(
            f"The teacher was trained on {theirs:,} images, the students on {ours:,}: what it passes on, it learned "
            "from the others, too."
        )
    members = card.recipe.model.options.get("members", ()) if card.recipe.model.name == ENSEMBLE else ()
    if any(views != "one" for views in (card.recipe.predict.views, *(member["views"] for member in members))):
        notes.append("The teacher's own figures are with its test-time views; it teaches with one view an image.")
    return tuple(notes)
