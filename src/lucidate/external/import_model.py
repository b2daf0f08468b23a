"""A model from elsewhere → a run like any other: an `.onnx` file, a `.keras` file, or a TOML that names a timm model.

Beside `model.onnx` or `model.keras` stands `model.toml`, which declares what the file cannot say:

    classes = ["cat", "dog"]        # in the order of the outputs
    outputs = "logits"              # or "probabilities"
    layout = "NCHW"                 # of an .onnx file whose shapes leave it open; or "NHWC"
    data = "photos"                 # optional: the images that it is judged on, as after --data, or beside the TOML
    split = "official"              # with data, optional: or "80-10-10"
    seed = 0                        # with data, optional: of the division
    mirror = true                   # optional: whether a mirrored image keeps its class; default: as the source says

    [preprocess]
    size = 224                      # pixels a side; may be left out where the file's shapes say it
    mean = [0.485, 0.456, 0.406]    # a channel (RGB), subtracted; of values from 0 to `scale`
    std = [0.229, 0.224, 0.225]     # what they are divided by then
    scale = 1                       # optional: 255 where values from 0 to 255 are meant. A model that wants plain
                                    # pixels, 0 to 255: mean = [0, 0, 0], std = [1, 1, 1], scale = 255
    interpolation = "bicubic"       # optional: how images of another size are resized; there is no other

A graph whose input is uint8 takes pixels as they are: mean, std and scale are left out. A graph that `lucidate export`
wrote says all of this itself; its TOML, if any, holds data, split, seed and mirror alone. A timm model is a TOML alone:

    model = "timm:resnet50"
    weights = "mine.safetensors"    # in timm's format, its head included; beside the TOML
    classes, [preprocess], data …   # as above

Where mean is 0, what hides a place in an occlusion is a medium gray, else the mean color.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from lucidate.core import machine
from lucidate.core.atomic import atomic_path, sha256
from lucidate.core.errors import LucidateError, PredictionsError, RunError, UnsafeFileError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import DataRecipe, Recipe
from lucidate.core.records import DataCard, ModelCard, OriginCard, RunCard, SplitCard, jsonable
from lucidate.core.registry import EXTERNAL, MODEL_FILES
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack, open_pack
from lucidate.data.sources.find import location
from lucidate.data.sources.source import sources
from lucidate.data.splits import divide
from lucidate.external.manifest import read_toml
from lucidate.external.readers import ImportedModel, read_file, read_timm_model, read_timm_toml, reorder
from lucidate.models.checkpoint import save_weights

VERSION = 1  # raise it when the same file and TOML would give another run
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")
NAMED = 4  # classes that an error names


def open_run(path: Path, *, reporter: Reporter | None = None) -> RunDir:
    """The run that a path means: a run's folder, or one that is made of a model's file, beside it, and kept.

    `model.onnx` becomes `model-onnx-run`, `model.keras` `model-keras-run`, `model.toml` `model-run`. It is made anew,
    and what was predicted with the old one is dropped, when the file or its TOML has changed.
    Raises RunError for what is neither, RecipeError for a TOML, WeightsError or UnsafeFileError for a file, that cannot
    be used, SourceError or PredictionsError for its images.
    """
    reporter = reporter or Silent()
    kind = path.suffix.lower()
    if path.is_dir() or not (path.is_file() or kind in MODEL_FILES):
        return RunDir.open(path)
    if not path.is_file():
        raise RunError(f"run: expected a run's folder or a model's file, received {path}, which does not exist")
    toml = path.with_suffix(".toml")
    values, text = read_toml(toml), toml.read_bytes() if toml.is_file() else b""
    stem = path.stem if kind == ".toml" else f"{path.stem}-{kind[1:]}"
    folder = path.parent / f"{stem}-run"
    if kind == ".toml":
        found, weights = read_timm_toml(path, values)
        digest, read = sha256(weights), partial(read_timm_model, path, found, weights)
    elif kind in MODEL_FILES:
        from lucidate.models.keras import read_keras
        from lucidate.models.onnx import read_onnx  # loads ONNX Runtime, which runs in folders need not wait for

        content = (read_onnx if kind == ".onnx" else read_keras)(path)
        digest = hashlib.sha256(content).hexdigest()
        read = partial(read_file, kind[1:], path, toml, values, content)
    else:
        raise _no_model(path, kind)
    key = hashlib.sha256(f"{VERSION} {digest} ".encode() + text).hexdigest()
    if not _stands(folder, key, toml, values.get("data")):
        origin = OriginCard(file=path.name, sha256=digest, declared=toml.name, key=key)
        _make(folder, read(), origin, toml=toml, reporter=reporter)
    return RunDir.open(folder)


def _stands(folder: Path, key: str, toml: Path, data: object) -> bool:
    """Whether a folder holds the run of this key, and its images lie where its card says, unless they are nowhere.

    Raises RunError where something else stands there.
    """
    if not folder.exists():
        return False
    try:
        card = RunCard.load(folder / "run.json")
    except RunError:
        card = None
    if card is None or card.origin is None:
        raise RunError(
            f"run: expected {folder} to be free for the run of this model, but it holds something else; move it away"
        )
    gone = card.data.path and not Path(card.data.path).exists()
    moved = gone and isinstance(data, str) and (toml.parent / data).exists()
    return card.origin.key == key and RunDir(folder).weights.exists() and not moved


def _make(folder: Path, imported: ImportedModel, origin: OriginCard, *, toml: Path, reporter: Reporter) -> None:
    """Make the run's folder, whole or not at all."""
    pack, source = _images(imported, toml, reporter)
    options, size = imported.images, imported.preprocess.size
    recipe = Recipe(
        seed=options.seed,
        data=DataRecipe(source=source, split=options.split, image_size=size),
        model=imported.recipe if pack is None else reorder(imported, pack.class_names),
    )
    splits = None if pack is None else divide(pack, recipe)
    flips = options.mirror if options.mirror is not None else bool(pack and pack.flips)
    card = RunCard(
        status="finished",
        name=folder.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=options.seed,
        recipe=recipe,
        data=DataCard(
            source=pack.source if pack else "",
            path=location(source) if pack else None,
            dataset=pack.dataset if pack else "",
            pack=pack.hash if pack else "",
            images=len(pack) if pack else 0,
            image_size=size,
            flips=flips,
            set_aside=jsonable(pack.set_aside) if pack else (),
        ),
        classes=pack.class_names if pack else imported.classes,
        split=SplitCard(
            scheme=splits.scheme if splits else "none",
            requested=options.split if splits else "none",
            sizes=splits.sizes if splits else {},
        ),
        preprocess=imported.preprocess.as_dict(),
        model=ModelCard(
            name=origin.file if imported.recipe.name in EXTERNAL else imported.recipe.name,
            options={},
            parameters=imported.parameters,
            values=imported.values,
        ),
        versions=machine.versions(),
        hardware=machine.hardware(),
        threads=torch.get_num_threads(),
        commit=machine.commit(),
        command="",
        notes=(
            f"The model was not trained here: it came in {origin.file} (SHA-256 {origin.sha256}). Whether it learned "
            "from the images that it is judged on is for its maker to say; if it did, its accuracy flatters it.",
        ),
        origin=origin,
    )
    try:
        with RunDir(folder).lock() if folder.exists() else nullcontext(), atomic_path(folder) as temporary:
            temporary.mkdir()
            made = RunDir(temporary)
            save_weights(imported.model, made.weights)
            if splits and pack:
                splits.save(made.splits, pack.ids)
            card.save(made.card)
    except OSError as error:
        raise RunError(
            f"{origin.file}: expected a folder beside it that can be written, {folder}, received none "
            f"({error.strerror}); copy the model to a folder of yours"
        ) from None
    reporter.say(f"{origin.file}: its run is kept in {folder}")


def _images(imported: ImportedModel, toml: Path, reporter: Reporter) -> tuple[Pack | None, str]:
    """The images that a model is judged on, and where they lie. Raises PredictionsError for other classes."""
    spec = imported.images.data
    if spec is None:
        return None, ""
    beside = toml.parent / Path(spec).expanduser()
    source = spec if spec in sources or not beside.exists() else str(beside)
    pack = open_pack(source, image_size=imported.preprocess.size, reporter=reporter)
    if set(pack.class_names) != set(imported.classes):
        more = [repr(name) for name in pack.class_names if name not in imported.classes][:NAMED]
        less = [repr(name) for name in imported.classes if name not in pack.class_names][:NAMED]
        parts = [f"{', '.join(more)} too"] * bool(more) + [f"no {', '.join(less)}"] * bool(less)
        raise PredictionsError(
            f"{toml}: data: expected images of the model's {len(imported.classes)} classes, received {spec} with "
            f"{' and '.join(parts)}"
        )
    return pack, source


def _no_model(path: Path, kind: str) -> LucidateError:
    if kind in PICKLES:
        return UnsafeFileError(
            f"run: expected a model that is data, received {path}, a pickle, which can run any code; nothing was "
            "opened: convert it where it was made, to ONNX, or to safetensors with a TOML that names the timm model"
        )
    ways = {
        ".safetensors": f'write {path.with_suffix(".toml").name} with model = "timm:NAME" and weights = "{path.name}"',
        ".h5": "load it in Keras and save it as .keras",
        ".hdf5": "load it in Keras and save it as .keras",
    }
    return RunError(
        f"run: expected a run's folder, an .onnx or .keras file, or a TOML that names a timm model, received {path}; "
        f"{ways.get(kind, 'convert the model to ONNX')}"
    )
