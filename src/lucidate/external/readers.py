"""What a file of somebody's holds, once it has been read, declared and tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lucidate.core.errors import LucidateError, RecipeError, UnsafeFileError, WeightsError
from lucidate.core.recipe import ModelRecipe
from lucidate.core.registry import KERAS, ONNX, TIMM
from lucidate.core.text import one_line
from lucidate.data.preprocess import Preprocess
from lucidate.external.manifest import (
    Described,
    DescribedBytes,
    DescribedFile,
    DescribedGraph,
    DescribedTimm,
    EmbeddedMetadata,
    Images,
    Known,
    declared,
    embedded_metadata,
    preprocess_of,
    raw_pixels,
    template,
)
from lucidate.models import keras_file, onnx_file
from lucidate.models.build import backbone, build, parameter_count, value_count
from lucidate.models.external import External
from lucidate.models.external_engine import Options
from lucidate.models.keras_file import require_safe
from lucidate.models.onnx_file import describe, parse

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


def read_onnx_model(path: Path, toml: Path, values: Mapping[str, Any], content: bytes) -> ImportedModel:
    """A graph, whole in `content`. Raises RecipeError, WeightsError."""
    graph = parse(content, name=str(path))
    if own := embedded_metadata(onnx_file.metadata(graph)):
        describe(graph, outputs="logits", name=str(path))
        options = Options(outputs="logits", layout="NHWC", gray=_mean(own))
        images = declared(Images, values, file=path, toml=toml)
        return _file(ONNX, path, toml, content, options, own.classes, raw_pixels(own.size), images)
    facts = describe(graph, outputs=_text(values.get("outputs")), name=str(path))
    layout = facts.layout or values.get("layout")
    height, width, colors = (facts.shape[place] for place in ((1, 2, 3) if layout == "NHWC" else (2, 3, 1)))
    _require_images(path, height, width, colors if layout else None)
    kind = DescribedBytes if facts.pixels == "uint8" else DescribedGraph
    known = Known(size=height or width, layout=facts.layout, classes=facts.classes)
    found = declared(kind, values, file=path, toml=toml, known=known)
    options = Options(outputs=found.outputs, layout=found.layout, gray=_gray(found))
    return _file(ONNX, path, toml, content, options, tuple(found.classes), preprocess_of(found), found)


def read_keras_model(path: Path, toml: Path, values: Mapping[str, Any], content: bytes) -> ImportedModel:
    """A `.keras` file. Raises RecipeError, WeightsError, UnsafeFileError."""
    from lucidate.models.keras_engine import KerasEngine

    require_safe(content, name=str(path))
    with _named(path):
        facts = KerasEngine(content)
    _require_images(path, *facts.shape[1:])
    if own := embedded_metadata(keras_file.metadata(content)):
        options = Options(outputs="probabilities", layout="NHWC", gray=_mean(own))
        images = declared(Images, values, file=path, toml=toml)
        return _file(KERAS, path, toml, content, options, own.classes, raw_pixels(own.size), images)
    known = Known(size=facts.shape[1] or facts.shape[2], classes=facts.classes)
    found = declared(DescribedFile, values, file=path, toml=toml, known=known)
    if facts.pixels == "uint8" and preprocess_of(found) != raw_pixels(found.preprocess.size):
        raise RecipeError(
            f"{toml}: preprocess: expected mean = [0, 0, 0], std = [1, 1, 1], scale = 255 for {path.name}, which takes "
            f"bytes, received mean = {found.preprocess.mean}, std = {found.preprocess.std}"
        )
    options = Options(outputs=found.outputs, layout="NHWC", gray=_gray(found))
    return _file(KERAS, path, toml, content, options, tuple(found.classes), preprocess_of(found), found)


def require_safetensors(path: Path) -> None:
    """Raise WeightsError for a file whose header tells that it holds no tensors, or not all of them."""
    try:
        with safe_open(path, framework="numpy"):
            return
    except (OSError, SafetensorError) as error:
        why = one_line(error)
        raise WeightsError(f"{path}: expected weights in safetensors, received a file that holds none: {why}") from None


def timm_weights(path: Path, values: Mapping[str, Any]) -> Path:
    """The weights that a timm model's TOML names, beside it. Raises RecipeError, WeightsError, UnsafeFileError."""
    beside = [file.name for file in (path.with_suffix(".onnx"), path.with_suffix(".keras")) if file.is_file()]
    if "model" not in values and beside:
        raise RecipeError(f"run: expected a model, received {path}, which speaks of {beside[0]}; name that one")
    required = [key for key in ("model", "weights", "classes", "preprocess") if key not in values]
    if required:
        raise RecipeError(f"{path}: expected {', '.join(required)}, received none; write {template(required, Known())}")
    name, weights = values["model"], values["weights"]
    if not isinstance(name, str) or not name.startswith(TIMM):
        raise RecipeError(f'{path}: model: expected a model of timm such as "timm:resnet50", received {name!r}')
    file = path.parent / str(weights)
    if file.suffix != ".safetensors":
        raise UnsafeFileError(
            f"{path}: weights: expected a .safetensors file, received {weights!r}; a pickle is not opened: convert it "
            "where it was made"
        )
    if not file.is_file():
        raise WeightsError(f"{path}: weights: expected a file beside it, received {weights!r}, which does not exist")
    require_safetensors(file)
    return file


def read_timm_model(path: Path, values: Mapping[str, Any]) -> ImportedModel:
    """A timm model with its head, from a TOML. Raises RecipeError, WeightsError, UnknownNameError."""
    file = timm_weights(path, values)
    found = declared(DescribedTimm, values, file=path, toml=path)
    from lucidate.models.pretrained import load_into

    preprocess = preprocess_of(found)
    # As it is in timm, for images of this side: "native" would rebuild its stem.
    recipe = ModelRecipe(name=found.model, fit="upsample", size=preprocess.size)
    with torch.random.fork_rng(devices=[]):
        model = build(recipe, len(found.classes), image_size=preprocess.size, initial=False).eval()
    net = backbone(model)[0]
    assert net is not None  # every timm model has one
    if notes := load_into(net, file):
        raise WeightsError(
            f"{path}: weights: expected a head of {len(found.classes)} classes in {file.name}, received none that fits "
            f"({'; '.join(notes)})"
        )
    images = _noise(preprocess)
    try:
        with torch.inference_mode():
            model(images)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = one_line(error, limit=120)
        raise RecipeError(
            f"{path}: preprocess.size: expected a side that {found.model} takes, received {preprocess.size}: {reason}"
        ) from None
    return ImportedModel(
        model=model,
        recipe=recipe,
        classes=tuple(found.classes),
        preprocess=preprocess,
        images=found,
        parameters=parameter_count(model),
        values=value_count(model),
    )


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


def _file(
    kind: str,
    path: Path,
    toml: Path,
    content: bytes,
    options: Options,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    images: Images,
) -> ImportedModel:
    """A file as a module that has been tried. Raises RecipeError where it answers otherwise than declared."""
    model = External(kind, options, len(classes))
    with _named(path):
        model.load_bytes(content)
        with torch.inference_mode():
            answers = model.engine.rehearse(_noise(preprocess)).float()
    if answers.ndim != 2 or answers.shape[1] != len(classes):
        raise RecipeError(
            f"{toml}: classes: expected a name for each of the {answers.shape[-1]} outputs of {path.name}, "
            f"received {len(classes)}"
        )
    sums = answers.sum(1)
    shares = bool((answers >= -UNITY).all()) and bool(((sums - 1).abs() < UNITY).all())
    if options.outputs == "logits" and (model.engine.softmaxed or shares):
        why = "which ends in softmax" if model.engine.softmaxed else "whose rows add up to 1"
        raise RecipeError(f"{toml}: outputs: expected 'probabilities' for {path.name}, {why}, received 'logits'")
    if options.outputs == "probabilities" and not (model.engine.softmaxed or shares):
        raise RecipeError(
            f"{toml}: outputs: expected 'logits' for {path.name}, whose answers are no probabilities (one row adds up "
            f"to {float(sums[0]):.3g}), received 'probabilities'"
        )
    engine = model.engine
    return ImportedModel(
        model=model,
        recipe=_recipe(model),
        classes=classes,
        preprocess=preprocess,
        images=images,
        parameters=engine.parameters,
        values=engine.values,
    )


def _recipe(model: External) -> ModelRecipe:
    return ModelRecipe(name=model.kind, **model.options.model_dump(mode="json"))


def _noise(preprocess: Preprocess) -> torch.Tensor:
    """(4, 3, S, S): noise, normalized."""
    generator = torch.Generator().manual_seed(0)
    shape = (TRIED, preprocess.size, preprocess.size, 3)
    return preprocess.normalize(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))


def _gray(found: Described) -> tuple[float, float, float]:
    """What hides a place: the mean color, normalized; a medium gray where there is no mean."""
    preprocess = preprocess_of(found)
    if any(preprocess.mean):
        return 0.0, 0.0, 0.0
    red, green, blue = (0.5 / std for std in preprocess.std)
    return red, green, blue


def _mean(own: EmbeddedMetadata) -> tuple[float, float, float]:
    """Likewise, of a model that takes values from 0 to 255."""
    red, green, blue = (255 * value for value in own.mean)
    return red, green, blue


def _require_images(path: Path, height: int | None, width: int | None, colors: int | None) -> None:
    """Refuse an input that takes no square color images."""
    if colors not in (3, None):
        raise WeightsError(f"{path}: expected a model for images of 3 colors, received one for {colors}")
    if height and width and height != width:
        raise WeightsError(f"{path}: expected a model for square images, received one for {height}×{width} pixels")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


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
