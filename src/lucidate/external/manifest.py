"""The TOML beside a model from elsewhere: what its file cannot say, declared by whoever knows. Nothing is guessed."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from lucidate.core.errors import RecipeError
from lucidate.core.recipe import Section, validated
from lucidate.data.preprocess import Preprocess

Color = Annotated[list[float], Field(min_length=3, max_length=3)]
Spread = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]


class Images(Section):
    """The images that a model is judged on, if any.

    data: as after `--data`; a path is looked for beside the TOML. split, seed: as in a recipe. mirror: whether a
    mirrored image keeps its class; default: as the source says.
    """

    data: str | None = None
    split: Literal["official", "80-10-10"] = "official"
    seed: int = Field(0, ge=0, lt=2**31)
    mirror: bool | None = None


class RawPixels(Section):
    """`[preprocess]` of a model that takes bytes as they are: `size` pixels a side."""

    size: Annotated[int, Field(ge=8, le=512)]
    interpolation: Literal["bicubic"] = "bicubic"

    def as_preprocess(self) -> Preprocess:
        return raw_pixels(self.size)


class Pixels(RawPixels):
    """`[preprocess]`: also `mean` and `std` a channel (RGB), of values from 0 to `scale`."""

    mean: Color
    std: Spread
    scale: Literal[1, 255] = 1

    def as_preprocess(self) -> Preprocess:
        mean: Any = tuple(value / self.scale for value in self.mean)
        std: Any = tuple(value / self.scale for value in self.std)
        return Preprocess(self.size, mean, std, self.interpolation)


class Described(Images):
    """What every model's TOML says."""

    classes: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2)
    preprocess: Pixels


class DescribedFile(Described):
    """Of an `.onnx` or `.keras` file; the layout of the latter is known."""

    outputs: Literal["logits", "probabilities"]
    layout: Literal["NCHW", "NHWC"]


class DescribedBytes(DescribedFile):
    """Of an `.onnx` file that takes bytes."""

    preprocess: RawPixels  # type: ignore[assignment]


class DescribedTimm(Described):
    """Of a timm model, whose TOML stands for it."""

    model: str
    weights: str


D = TypeVar("D", bound=Images)
LARGEST = 1 << 22  # bytes of a TOML: names of a hundred thousand classes fit
KEYS = ("model", "weights", "classes", "outputs", "layout", "preprocess")  # in the order in which they are asked for


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


def declared(
    kind: type[D],
    values: Mapping[str, Any],
    *,
    file: Path,
    toml: Path,
    size: int | None = None,
    layout: str | None = None,
    classes: int | None = None,
) -> D:
    """A TOML's values as one of the sections above. size, layout, classes: what the file says itself, if it does.

    Raises RecipeError, in one line that shows what to write, for what is missing or does not fit.
    """
    values = dict(values)
    if layout and values.setdefault("layout", layout) != layout:
        raise RecipeError(f"{toml}: layout: expected {layout!r}, by {file.name}, received {values['layout']!r}")
    if size and isinstance(values.get("preprocess"), dict):
        pixels = values["preprocess"] = {"size": size, **values["preprocess"]}
        if pixels["size"] != size:
            raise RecipeError(
                f"{toml}: preprocess.size: expected {size}, which {file.name} takes, received {pixels['size']!r}"
            )
    try:
        kind.model_validate(values)
        absent = []
    except ValidationError as error:
        absent = [one["loc"] for one in error.errors() if one["type"] == "missing"]
    if absent:
        missing = [".".join(map(str, keys)) for keys in sorted(absent, key=lambda keys: KEYS.index(str(keys[0])))]
        where = "" if file == toml else f" in {toml}"
        what = f"{', '.join(missing)}{where}" if toml.exists() else f"{toml} beside it"
        lines = template(missing, raw=kind is DescribedBytes, size=size, classes=classes)
        raise RecipeError(f"{file}: expected {what}, received none; write {lines}")
    found = validated(kind, values, name=str(toml))
    _require_sense(found, toml)
    return found


def template(missing: list[str], *, raw: bool, size: int | None, classes: int | None) -> str:
    """What to write, as lines of TOML in one: examples of every key that is missing."""
    many = f"{classes} names" if classes else "names"
    pixels = {"size": "size = 224"}
    if not raw:
        pixels |= {"mean": "mean = [0.485, 0.456, 0.406]", "std": "std = [0.229, 0.224, 0.225]"}
    inline = ", ".join(line for key, line in pixels.items() if key != "size" or not size) or f"size = {size}"
    examples = {
        "model": 'model = "timm:resnet50"',
        "weights": 'weights = "FILE.safetensors"',
        "classes": f'classes = ["CAT", "DOG"] ({many}, in the order of the outputs)',
        "outputs": 'outputs = "logits" (or "probabilities")',
        "layout": 'layout = "NCHW" (or "NHWC")',
        "preprocess": f"preprocess = {{{inline}}}",
    }
    lines = [examples[key] for key in missing if key in examples]
    if lacking := [line for key, line in pixels.items() if f"preprocess.{key}" in missing]:
        lines.append(f"under [preprocess] {', '.join(lacking)}")
    of = " (of values from 0 to 1; else add scale = 255)" if any("mean" in line for line in lines) else ""
    return "; ".join(lines) + of


def raw_pixels(size: int) -> Preprocess:
    """Of a model that takes values from 0 to 255: mean 0, and deviation 1/255 of values from 0 to 1."""
    return Preprocess(size, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


def _require_sense(found: Images, toml: Path) -> None:
    """Refuse declarations that contradict themselves."""
    if found.data is None and {"split", "seed"} & found.model_fields_set:
        raise RecipeError(f'{toml}: split, seed: expected only with data = "SRC", received them without')
    if not isinstance(found, Described):
        return
    if twice := [name for name, times in Counter(found.classes).items() if times > 1]:
        raise RecipeError(f"{toml}: classes: expected different names, received {twice[0]!r} twice")
    pixels: RawPixels = found.preprocess
    if not isinstance(pixels, Pixels):
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


def embedded_metadata(said: Mapping[str, Any]) -> tuple[tuple[str, ...], Preprocess, tuple[float, float, float]] | None:
    """What a file that lucidate has exported says of itself, enough to ask it without a TOML; None of other files.

    Classes in the order of its answers; how it wants its pixels, preprocessing being inside; the color that it
    subtracts, from 0 to 255.
    """
    try:
        names, preprocess = said["class_names"], said["preprocess"]
        if preprocess["inside"] is not True or not all(isinstance(name, str) for name in names):
            return None
        red, green, blue = (255 * float(value) for value in preprocess["mean"])
        return tuple(names), raw_pixels(int(preprocess["size"])), (red, green, blue)
    except (KeyError, TypeError, ValueError):
        return None
