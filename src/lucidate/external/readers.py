"""What a file of somebody's holds, once it has been read, declared and tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lucidate.core.errors import LucidateError, RecipeError, UnsafeFileError, WeightsError, raised_as
from lucidate.core.recipe import ModelRecipe
from lucidate.core.registry import KERAS, ONNX, TIMM
from lucidate.data.preprocess import Preprocess
from lucidate.external.manifest import (
    DescribedBytes,
    DescribedFile,
    DescribedTimm,
    Images,
    declared,
    embedded_metadata,
    raw_pixels,
)
from lucidate.models.build import backbone, build, parameter_count, value_count
from lucidate.models.external import External, Options, open_engine

TRIED = 4  # images of noise that a model is asked for before it is taken in
UNITY = 1e-2  # by how much probabilities may miss a sum of 1: float16 over a thousand classes stays well inside


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A model that has answered once. classes: in the order of its answers."""

    model: nn.Module
    recipe: ModelRecipe
    classes: tuple[str, ...]
    preprocess: Preprocess
    images: Images
    parameters: int
    values: int


def read_file(kind: str, path: Path, toml: Path, values: Mapping[str, Any], content: bytes) -> ImportedModel:
    """A graph, or a network of Keras, whole in `content`. Raises RecipeError, WeightsError, UnsafeFileError."""
    said = values.get("outputs")
    with _named(path):
        facts = open_engine(kind, content, outputs=said if isinstance(said, str) else "logits")
    layout = facts.layout or values.get("layout")
    height, width, colors = (facts.shape[axis] for axis in ((1, 2, 3) if layout == "NHWC" else (2, 3, 1)))
    if layout and colors not in (3, None):
        raise WeightsError(f"{path}: expected a model for images of 3 colors, received one for {colors}")
    if height and width and height != width:
        raise WeightsError(f"{path}: expected a model for square images, received one for {height}×{width} pixels")
    if own := embedded_metadata(facts.metadata):
        classes, preprocess, gray = own
        images = declared(Images, values, file=path, toml=toml)
        options = Options(outputs="logits" if kind == ONNX else "probabilities", layout="NHWC", gray=gray)
    else:
        section = DescribedBytes if kind == ONNX and facts.pixels == "uint8" else DescribedFile
        known: Any = {"size": height or width, "layout": facts.layout, "classes": facts.classes}
        images = found = declared(section, values, file=path, toml=toml, **known)
        classes, preprocess = tuple(found.classes), found.preprocess.as_preprocess()
        if kind == KERAS and facts.pixels == "uint8" and preprocess != raw_pixels(preprocess.size):
            raise RecipeError(
                f"{toml}: preprocess: expected mean = [0, 0, 0], std = [1, 1, 1], scale = 255 for {path.name}, which "
                f"takes bytes, received mean = {found.preprocess.mean}, std = {found.preprocess.std}"
            )
        # What hides a place: the mean color, normalized; a medium gray where there is no mean.
        red, green, blue = (0.0 if any(preprocess.mean) else 0.5 / std for std in preprocess.std)
        options = Options(outputs=found.outputs, layout=found.layout, gray=(red, green, blue))
    model = External(kind, options, len(classes))
    with _named(path):
        model.load_bytes(content)
        with torch.inference_mode():
            answers = model.engine.rehearse(_noise(preprocess)).float()
    _require_answers(model, answers, name=path.name, toml=toml)
    counts = model.engine.parameters, model.engine.values
    return ImportedModel(model, _recipe(model), classes, preprocess, images, *counts)


def read_timm_toml(path: Path, values: Mapping[str, Any]) -> tuple[DescribedTimm, Path]:
    """What a timm model's TOML says, and its weights beside it. Raises RecipeError, WeightsError, UnsafeFileError."""
    beside = [file.name for file in (path.with_suffix(".onnx"), path.with_suffix(".keras")) if file.is_file()]
    if "model" not in values and beside:
        raise RecipeError(f"run: expected a model, received {path}, which speaks of {beside[0]}; name that one")
    found = declared(DescribedTimm, values, file=path, toml=path)
    if not found.model.startswith(TIMM):
        raise RecipeError(f'{path}: model: expected a model of timm such as "timm:resnet50", received {found.model!r}')
    file = path.parent / found.weights
    if file.suffix != ".safetensors":
        raise UnsafeFileError(
            f"{path}: weights: expected a .safetensors file, received {found.weights!r}; a pickle is not opened: "
            "convert it where it was made"
        )
    if not file.is_file():
        raise WeightsError(
            f"{path}: weights: expected a file beside it, received {found.weights!r}, which does not exist"
        )
    words = f"{file}: expected weights in safetensors, received a file that holds none"
    with raised_as(WeightsError, words), safe_open(file, framework="numpy"):
        return found, file  # its header tells whether it holds tensors, and all of them


def read_timm_model(path: Path, found: DescribedTimm, file: Path) -> ImportedModel:
    """A timm model with its head, as its TOML says. Raises RecipeError, WeightsError, UnknownNameError."""
    from lucidate.models.pretrained import Weights, load_into

    preprocess = found.preprocess.as_preprocess()
    # As it is in timm, for images of this side: "native" would rebuild its stem.
    recipe = ModelRecipe(name=found.model, fit="upsample", size=preprocess.size)
    with torch.random.fork_rng(devices=[]):
        model = build(recipe, len(found.classes), image_size=preprocess.size, initial=False).eval()
    net = backbone(model)[0]
    assert net is not None  # every timm model has one
    if notes := load_into(net, Weights(file, file.name)):
        raise WeightsError(
            f"{path}: weights: expected a head of {len(found.classes)} classes in {file.name}, received none that fits "
            f"({'; '.join(notes)})"
        )
    words = f"{path}: preprocess.size: expected a side that {found.model} takes, received {preprocess.size}"
    with torch.inference_mode(), raised_as(RecipeError, words, limit=120):
        model(_noise(preprocess))
    counts = parameter_count(model), value_count(model)
    return ImportedModel(model, recipe, tuple(found.classes), preprocess, found, *counts)


def reorder(imported: ImportedModel, names: Sequence[str]) -> ModelRecipe:
    """Let a model, in place, answer in another order of its classes; its recipe then."""
    order = tuple(imported.classes.index(name) for name in names)
    if order == tuple(range(len(order))):
        return imported.recipe
    if isinstance(imported.model, External):
        imported.model.options = imported.model.options.model_copy(update={"order": order})
        return _recipe(imported.model)
    net: Any = backbone(imported.model)[0]
    heads = net.pretrained_cfg.get("classifier") or ()
    with torch.no_grad():
        for head in (heads,) if isinstance(heads, str) else heads:
            for value in net.get_submodule(head).parameters():
                value.copy_(value[list(order)].clone())
    return imported.recipe


def _require_answers(model: External, answers: Tensor, *, name: str, toml: Path) -> None:
    """Raise RecipeError where a file's answers are others than declared."""
    if answers.ndim != 2 or answers.shape[1] != model.num_classes:
        raise RecipeError(
            f"{toml}: classes: expected a name for each of the {answers.shape[-1]} outputs of {name}, "
            f"received {model.num_classes}"
        )
    sums, softmaxed, said = answers.sum(1), model.engine.softmaxed, model.options.outputs
    shares = bool((answers >= -UNITY).all()) and bool(((sums - 1).abs() < UNITY).all())
    if said == "logits" and (softmaxed or shares):
        why = "which ends in softmax" if softmaxed else "whose rows add up to 1"
        raise RecipeError(f"{toml}: outputs: expected 'probabilities' for {name}, {why}, received 'logits'")
    if said == "probabilities" and not (softmaxed or shares):
        raise RecipeError(
            f"{toml}: outputs: expected 'logits' for {name}, whose answers are no probabilities (one row adds up "
            f"to {float(sums[0]):.3g}), received 'probabilities'"
        )


def _recipe(model: External) -> ModelRecipe:
    return ModelRecipe(name=model.kind, **model.options.model_dump(mode="json"))


def _noise(preprocess: Preprocess) -> Tensor:
    """(4, 3, S, S): noise, normalized."""
    generator = torch.Generator().manual_seed(0)
    shape = (TRIED, preprocess.size, preprocess.size, 3)
    return preprocess.normalize(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of a model, which does not know its file, with the file's name."""
    try:
        yield
    except LucidateError as error:
        who, colon, what = str(error).partition(": ")
        if who in ("model", "the model") and colon:
            raise type(error)(f"{path}: {what}") from None
        raise
