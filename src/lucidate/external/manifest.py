"""The TOML beside a model from elsewhere: what its file cannot say, declared by whoever knows. Nothing is guessed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from lucidate.core.errors import RecipeError
from lucidate.core.recipe import Section, validated
from lucidate.data.preprocess import Preprocess

Color = Annotated[list[float], Field(min_length=3, max_length=3)]
Spread = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
Side = Annotated[int, Field(ge=8, le=512)]


class Images(Section):
    """The images that a model is judged on, if any.

    data: as after `--data`; a path is looked for beside the TOML. split, seed: as in a recipe. mirror: whether a
    mirrored image keeps its class; default: as the source says.
    """

    data: str | None = None
    split: Literal["official", "80-10-10"] = "official"
    seed: int = Field(0, ge=0, lt=2**31)
    mirror: bool | None = None


class Pixels(Section):
    """`[preprocess]`: `size` pixels a side; `mean` and `std` a channel (RGB), of values from 0 to `scale`."""

    size: Side
    mean: Color
    std: Spread
    scale: Literal[1, 255] = 1
    interpolation: Literal["bicubic"] = "bicubic"


class RawPixels(Section):
    """`[preprocess]` of a model that takes bytes as they are."""

    size: Side
    interpolation: Literal["bicubic"] = "bicubic"


class Described(Images):
    """What every model's TOML says."""

    classes: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2)
    preprocess: Pixels


class DescribedFile(Described):
    """Of a `.keras` file."""

    outputs: Literal["logits", "probabilities"]


class DescribedGraph(DescribedFile):
    """Of an `.onnx` file."""

    layout: Literal["NCHW", "NHWC"]


class DescribedBytes(DescribedGraph):
    """Of an `.onnx` file that takes bytes."""

    preprocess: RawPixels  # type: ignore[assignment]


class DescribedTimm(Described):
    """Of a timm model, whose TOML stands for it."""

    model: str
    weights: str


D = TypeVar("D", bound=Images)
LARGEST = 1 << 22  # bytes of a TOML: names of a hundred thousand classes fit
KEYS = ("model", "weights", "classes", "outputs", "layout", "preprocess")  # in the order in which they are asked for


@dataclass(frozen=True)
class Known:
    """What a file says itself, which need not be declared; None where it does not."""

    size: int | None = None
    layout: str | None = None
    classes: int | None = None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's values; none where there is no such file. Raises RecipeError."""
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise RecipeError(f"{path}: expected a TOML file of at most {LARGEST:,} bytes, received {size:,}")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: expected a TOML file, received one that does not parse: {error}") from None


def declared(kind: type[D], values: Mapping[str, Any], *, file: Path, toml: Path, known: Known = Known()) -> D:
    """A TOML's values as one of the sections above, filled up with what is known.

    Raises RecipeError, in one line that shows what to write, for what is missing or does not fit.
    """
    values, fields = dict(values), kind.model_fields
    missing = [key for key in KEYS if key in fields and fields[key].is_required() and key not in values]
    if "layout" in fields and known.layout:
        missing = [key for key in missing if key != "layout"]
        if values.setdefault("layout", known.layout) != known.layout:
            raise RecipeError(
                f"{toml}: layout: expected {known.layout!r}, by {file.name}, received {values['layout']!r}"
            )
    section: Any = fields["preprocess"].annotation if "preprocess" in fields else None
    pixels = values.get("preprocess")
    if isinstance(pixels, dict) and section:
        pixels = {"size": known.size, **pixels} if known.size else pixels
        if known.size and pixels["size"] != known.size:
            raise RecipeError(
                f"{toml}: preprocess.size: expected {known.size}, which {file.name} takes, received {pixels['size']!r}"
            )
        values["preprocess"] = pixels
        inner = section.model_fields
        missing += [f"preprocess.{key}" for key, field in inner.items() if field.is_required() and key not in pixels]
    if missing:
        what = f"{toml} beside it" if not toml.exists() else f"{', '.join(missing)} in {toml}"
        raise RecipeError(f"{file}: expected {what}, received none; write {template(missing, known, raw=section)}")
    found = validated(kind, values, name=str(toml))
    _require_sense(found, toml)
    return found


def template(missing: list[str], known: Known, *, raw: Any = None) -> str:
    """What to write, as lines of TOML in one: examples of every key that is missing."""
    many = f"{known.classes} names" if known.classes else "names"
    pixels = {"size": "size = 224", "mean": "mean = [0.485, 0.456, 0.406]", "std": "std = [0.229, 0.224, 0.225]"}
    wanted = ["size"] if raw is RawPixels else list(pixels)
    inline = ", ".join(pixels[key] for key in wanted if key != "size" or not known.size)
    examples = {
        "model": 'model = "timm:resnet50"',
        "weights": 'weights = "FILE.safetensors"',
        "classes": f'classes = ["CAT", "DOG"] ({many}, in the order of the outputs)',
        "outputs": 'outputs = "logits" (or "probabilities")',
        "layout": 'layout = "NCHW" (or "NHWC")',
        "preprocess": f"preprocess = {{{inline}}}" if inline else f"preprocess = {{size = {known.size}}}",
    }
    lines = [examples[key] for key in KEYS if key in missing]
    if lacking := [pixels[key] for key in pixels if f"preprocess.{key}" in missing]:
        lines.append(f"under [preprocess] {', '.join(lacking)}")
    of = " (of values from 0 to 1; else add scale = 255)" if any("mean" in line for line in lines) else ""
    return "; ".join(lines) + of


def preprocess_of(found: Described) -> Preprocess:
    """How a model wants its pixels. Bytes as they are have mean 0 and deviation 1/255 of values from 0 to 1."""
    pixels: Any = found.preprocess
    if isinstance(pixels, RawPixels):
        return raw_pixels(pixels.size)
    mean, std = (tuple(value / pixels.scale for value in values) for values in (pixels.mean, pixels.std))
    return Preprocess(pixels.size, mean, std, pixels.interpolation)


def raw_pixels(size: int) -> Preprocess:
    """Of a model that takes values from 0 to 255."""
    return Preprocess(size, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


def _require_sense(found: Images, toml: Path) -> None:
    """Refuse declarations that contradict themselves."""
    if found.data is None and {"split", "seed"} & found.model_fields_set:
        raise RecipeError(f'{toml}: split, seed: expected only with data = "SRC", received them without')
    if not isinstance(found, Described):
        return
    twice = [name for place, name in enumerate(found.classes) if name in found.classes[:place]]
    if twice:
        raise RecipeError(f"{toml}: classes: expected different names, received {twice[0]!r} twice")
    pixels: Any = found.preprocess
    if isinstance(pixels, RawPixels):
        return
    if not all(0 <= value <= pixels.scale for value in pixels.mean):
        other = "; of values from 0 to 255, write scale = 255" if pixels.scale == 1 else ""
        raise RecipeError(
            f"{toml}: preprocess.mean: expected values from 0 to {pixels.scale}, received {pixels.mean}{other}"
        )
    if pixels.scale == 255 and min(pixels.std) < 1:
        raise RecipeError(
            f"{toml}: preprocess.std: expected 1 or more, of values from 0 to 255, received {pixels.std}; of values "
            "from 0 to 1, leave scale out"
        )


@dataclass(frozen=True)
class EmbeddedMetadata:
    """What a model that lucidate has exported says of itself in its file: enough to ask it without a TOML.

    classes: in the order of its answers. size: pixels a side. mean: the color that it subtracts, from 0 to 1.
    """

    classes: tuple[str, ...]
    size: int
    mean: tuple[float, float, float]


def embedded_metadata(said: Mapping[str, Any]) -> EmbeddedMetadata | None:
    """A file's metadata, where it is of ours: `class_names`, and `preprocess`, which happens inside; else None."""
    try:
        names, preprocess = said["class_names"], said["preprocess"]
        if preprocess["inside"] is not True or not all(isinstance(name, str) for name in names):
            return None
        red, green, blue = map(float, preprocess["mean"])
        return EmbeddedMetadata(tuple(names), int(preprocess["size"]), (red, green, blue))
    except (KeyError, TypeError, ValueError):
        return None
