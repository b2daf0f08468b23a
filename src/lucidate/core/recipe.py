"""The recipe: everything a run depends on, frozen. TOML in, `--set a.b=c` on top.

This file does not know which models exist or what their options are: `[model]` keeps its extra keys, and
`lucidate.models` checks them against the model's own signature.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lucidate.core.errors import RecipeError
from lucidate.core.registry import TIMM, choices
from lucidate.core.text import brief


class Section(BaseModel):
    """A frozen part of a recipe; unknown keys and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


class DataRecipe(Section):
    """Which images, and how they are divided."""

    source: str = "digits"
    name: str | None = Field(
        None, min_length=1, description="what the images are called in pages and files; default: the source's name"
    )
    split: Literal["official", "80-10-10", "20-10-70"] = "official"
    val_fraction: float = Field(0.1, gt=0, lt=0.9, description="share of `train` kept for validation (official split)")
    train_size: int | None = Field(
        None, ge=1, description="train on so many images, drawn by class, with validation in proportion; default: all"
    )
    image_size: int | None = Field(
        None, ge=8, le=512, description="side in pixels; default: the images' own where all agree, else 64"
    )
    seed: int | None = Field(None, ge=0, lt=2**31, description="of the division into splits; default: the recipe's")


class ModelRecipe(Section):
    """A registered model and the options that its function takes."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "compact"

    @property
    def options(self) -> dict[str, Any]:
        """Keys of `[model]` other than its name."""
        return dict(self.model_extra or {})


class TrainRecipe(Section):
    """How the weights are found."""

    epochs: int = Field(30, ge=1, description="passes over the training images, at most")
    minutes: float | None = Field(
        None,
        gt=0,
        description="budget of the epochs' wall time, which cosine and linear schedules fit themselves to; a repeated "
        "run has other bits",
    )
    batch_size: int = Field(64, ge=2, description="images a step; BatchNorm needs two")
    lr: float = Field(1e-3, gt=0, description="highest learning rate of the schedule")
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = Field(
        "adam", description="rule that turns gradients into steps"
    )
    head_lr: float | None = Field(None, gt=0, description="muon: highest rate of dense layers; default: lr")
    bias_lr: float | None = Field(None, gt=0, description="muon: highest rate of biases; default: lr")
    weight_decay: float = Field(0.0, ge=0, description="pull of the weights toward zero; 0: none")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum; for sgd, and what muon leaves to it")
    muon_momentum: float = Field(0.6, ge=0, lt=1, description="momentum of muon's filters")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of a label that is spread evenly over all classes; 0: none"
    )
    schedule: Literal["constant", "cosine", "linear", "plateau"] = Field(
        "plateau", description="course of lr: constant, down to zero, or cut where validation no longer improves"
    )
    warmup_epochs: int = Field(0, ge=0, description="linear warm-up; not for plateau")
    plateau_patience: int = Field(3, ge=1, description="epochs without a better validation accuracy before lr is cut")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="of lr when it is cut")
    early_stop: int | None = Field(None, ge=1, description="epochs without a better validation accuracy before the end")
    restore_best: bool = Field(True, description="end with the weights of the best validation accuracy")
    average: float = Field(0.0, ge=0, lt=1, description="decay a step of averaged weights, at most; 0: none are kept")
    hard_epochs: int = Field(0, ge=0, description="last epochs, which train on the harder images alone")
    hard_share: float = Field(0.5, gt=0, lt=1, description="how many those are: of the highest losses when last seen")
    input_epochs: int | None = Field(
        None, ge=0, description="epochs in which fastnet's input layer still learns its bias; default: all"
    )
    probe_steps: int = Field(
        0, ge=0, description="timm models that begin with weights: L-BFGS steps of the head alone, before the rest"
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="timm models that begin with weights: factor of the rate a layer, from the head down",
    )
    freeze: float = Field(
        0.0,
        ge=0,
        le=1,
        description="timm models that begin with weights: share of the layers, the first ones, that stay",
    )
    thaw: float = Field(1.0, ge=0, le=1, description="share of the training after which frozen layers learn as well")
    freeze_norms: bool = Field(
        False, description="models that begin with weights: BatchNorm keeps the statistics that it came with"
    )
    sizes: list[int] | None = Field(
        None,
        description="timm models with fit = 'upsample': size is the largest of these that train.minutes suffice for, "
        "else the smallest",
    )
    passes: int | None = Field(
        None,
        ge=1,
        description="with train.sizes: a budget for fewer passes over the images leaves trivial, mixup and cutmix out; "
        "one for more, start_size",
    )
    start_size: int | None = Field(
        None, ge=16, le=512, description="timm models with fit = 'upsample': first side in pixels, which grows to size"
    )
    balance: Literal["none", "weights", "sampling"] = Field(
        "none", description="of rare classes: images weigh more in the loss, or are drawn more often; none: as they are"
    )
    precision: Literal["float32", "bfloat16", "auto", "float64"] = Field(
        "float32",
        description="of convolutions and products; auto: bfloat16 where a probe finds it faster; float64: slow, "
        "and the same history whatever the number of threads or processes",
    )
    compile: bool = Field(False, description="torch.compile: minutes at the start, for long runs on a GPU")


class AugmentRecipe(Section):
    """What is done to training images, anew in each epoch. Fractions are of the image's side."""

    flip: bool | Literal["auto", "alternating"] = Field(
        "auto", description="auto: where a mirrored image keeps its class; alternating: likewise, every other epoch"
    )
    translate: int = Field(0, ge=0, le=64, description="at most this many whole pixels, either axis, edges reflected")
    crop: float = Field(0.0, ge=0, lt=0.5, description="the same, as a fraction of the side: a random crop of any size")
    rotation: float = Field(0.0, ge=0, le=0.5, description="at most this part of a full turn, either way")
    zoom: float = Field(0.0, ge=0, lt=1, description="scale drawn from 1 - zoom to 1 + zoom")
    shift: float = Field(0.0, ge=0, lt=1, description="at most this fraction of the side, either axis")
    cutout: int = Field(0, ge=0, le=512, description="side in pixels of a square that is hidden; 0: none")
    trivial: bool = Field(False, description="before all else, TrivialAugment's wide space: one operation an image")
    mixup: float = Field(0.0, ge=0, le=10, description="blend pairs of images by Beta(mixup, mixup); 0: none")
    cutmix: float = Field(
        0.0,
        ge=0,
        le=10,
        description="paste a box of another image, its area from Beta(cutmix, cutmix); 0: none; where mixup is asked "
        "for too, each batch takes either by a fair draw",
    )


class PredictRecipe(Section):
    """How the trained model is asked."""

    views: Literal["one", "mirror", "mirror-shift"] = Field("one", description="test-time views to average over")


class DistillRecipe(Section):
    """What `lucidate distill` teaches a student by; without a teacher it says nothing."""

    temperature: float = Field(1.0, gt=0, le=100, description="of both softmaxes: the higher, the softer the answers")
    weight: float = Field(0.9, ge=0, le=1, description="share of the loss that the teacher's answers have")
    teacher: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the teacher's weights, which lucidate distill enters"
    )


class Recipe(Section):
    """One run, as it was asked for.

    >>> Recipe(seed=1).train.epochs
    30
    """

    seed: int = Field(0, ge=0, lt=2**31)
    data: DataRecipe = DataRecipe()
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    predict: PredictRecipe = PredictRecipe()
    distill: DistillRecipe = DistillRecipe()


def load_recipe(recipe: str | Path, *, source: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe, or one of the recipes that come with lucidate by its bare name.

    source: takes the place of data.source. overrides: "a.b=c", c read as a TOML value where it is one, else as a
    string.
    Raises RecipeError with the key, what was expected and what came.
    """
    path = find_recipe(recipe)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: expected a TOML file, received one that does not parse: {error}") from None
    model = values.get("model")
    before = str(model.get("name", "")) if isinstance(model, dict) else ""
    for override in overrides:
        key, _, name = override.partition("=")
        # Options are those of one model, or of all of timm's: another one begins with its own defaults.
        if key.strip() == "model.name" and _family(name.strip().strip("\"'")) != _family(before):
            values["model"] = {}
    apply_overrides(values, overrides)
    if source is not None and isinstance(data := values.setdefault("data", {}), dict):
        data["source"] = source
    return make_recipe(values, name=f"{path} with --set" if overrides else str(path))


def _family(name: str) -> str:
    """Models that take the same options."""
    return TIMM if name.startswith(TIMM) else name


def make_recipe(values: Mapping[str, Any], *, name: str = "recipe") -> Recipe:
    """Validate a dictionary as a recipe. Raises RecipeError naming the first wrong key."""
    return validated(Recipe, values, name=name)


def validated(kind: type[S], values: Mapping[str, Any], *, name: str) -> S:
    """A dictionary as one of our sections. Raises RecipeError naming the first wrong key, and `name` before it."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{name}: {_describe(error, kind)}") from None


def shipped_recipes() -> dict[str, Path]:
    """Recipes that come with lucidate: bare name → file."""
    inside = Path(__file__).parents[1] / "recipes"  # in an installed wheel
    checkout = Path(__file__).parents[3] / "recipes"  # in an editable install
    folder = inside if inside.is_dir() else checkout
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def with_overrides(recipe: Recipe, *, source: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe with another source and with overrides, as `load_recipe` takes them. Raises RecipeError."""
    values = apply_overrides(recipe.model_dump(), overrides)
    if source is not None:
        values["data"]["source"] = source
    return make_recipe(values, name="recipe with --set")


def overridden(overrides: Sequence[str]) -> set[str]:
    """The keys that overrides set, such as "train.epochs". Raises RecipeError."""
    values = apply_overrides({}, overrides)
    nested = {name: section for name, section in values.items() if isinstance(section, dict)}
    return {f"{name}.{key}" for name, section in nested.items() for key in section} | (values.keys() - nested.keys())


def find_recipe(recipe: str | Path) -> Path:
    """The file that `recipe` means. Raises RecipeError when there is none."""
    path = Path(recipe)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    if path.is_dir():
        raise RecipeError(f"recipe: expected a TOML file, received the folder {path}")
    raise RecipeError(
        f"recipe: expected a TOML file or {choices(str(recipe), list(shipped))}, received {str(recipe)!r}, "
        "which does not exist"
    )


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set each "a.b=c" in a nested dictionary, in place; returns it. Raises RecipeError."""
    for override in overrides:
        apply_override(values, override)
    return values


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one "a.b=c" in a nested dictionary, in place."""
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise RecipeError(f"--set: expected KEY=VALUE such as train.epochs=3, received {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        try:
            value = float(text)  # .5 and 5., which TOML does not take
        except ValueError:
            value = text.strip()
    section = values
    for part in parts[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise RecipeError(f"--set: expected {part!r} to be a section, received {override!r}")
    section[parts[-1]] = value


def _describe(error: ValidationError, kind: type[Section]) -> str:
    """The first of pydantic's complaints, as one line."""
    first = error.errors()[0]
    # Unions add their branch to the location; the key that the user wrote ends before it.
    location = [str(part) for part in first["loc"] if str(part) not in _BRANCHES]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        section: Any = kind
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        known = ", ".join(section.model_fields)
        return f"unknown key {key!r}; expected {choices(location[-1], known.split(', '))}"
    expected = first["msg"].removeprefix("Input should be ")
    if first["type"] == "model_type":
        expected = f"a section such as [{key}]"
    elif key == "augment.flip":
        expected = "'auto', 'alternating', true or false"
    return f"{key}: expected {expected}, received {brief(first['input'])}"


_BRANCHES = {"bool", "int", "none", "literal['auto','alternating']", "literal['auto']"}
