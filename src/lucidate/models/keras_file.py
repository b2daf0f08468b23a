"""A `.keras` file, looked at before Keras sees it: it may hold layers of Keras with their weights, and nothing else.

Such a file is a zip of `config.json`, from which Keras builds objects by their names, and HDF5 weights. A Lambda layer
is Python code, and some classes of Keras open files or pickles: what is not known to be harmless is refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lucidate.core.errors import LucidateError, UnsafeFileError, WeightsError

OWN = "lucidate"  # in metadata.json: what our own export says
MEMBERS = {"config.json", "metadata.json", "model.weights.h5"}
LARGEST_CONFIG = 64 * 2**20  # bytes; networks of a thousand layers have 2 MB
EXPANSION, SLACK = 10, 2**24  # Keras packs without compression: ten times the file, and 16 MB, are out of the question
DEEPEST = 100  # models within models
MODELS = {"Functional", "Sequential"}
NUMBERS = {"DTypePolicy", "FloatDTypePolicy"}
LAYERS = re.compile(
    r"""
    InputLayer | Identity | Dense | EinsumDense | Embedding | Masking | Activation | ReLU | LeakyReLU | PReLU | ELU
    | Softmax | Conv[123]D | Conv2DTranspose | DepthwiseConv2D | SeparableConv2D
    | (Max|Average)Pooling2D | Global(Max|Average)Pooling[12]D | Adaptive(Max|Average)Pooling2D
    | (Batch|Layer|Group|Unit|RMS|Spectral)Normalization | Normalization | Rescaling | Resizing | CenterCrop
    | TimeDistributed | Dropout | SpatialDropout[12]D | Gaussian(Dropout|Noise) | AlphaDropout | ActivityRegularization
    | Flatten | Reshape | Permute | RepeatVector | Cropping2D | ZeroPadding2D | UpSampling2D
    | Add | Subtract | Multiply | Average | Maximum | Minimum | Concatenate | Dot
    | Attention | AdditiveAttention | MultiHeadAttention | GroupedQueryAttention
    | AutoContrast | Equalization | Solarization | AugMix | CutMix | MixUp | RandAugment
    | Random(Brightness|ColorDegeneration|ColorJitter|Contrast|Crop|ElasticTransform|Erasing|Flip|GaussianBlur)
    | Random(Grayscale|Hue|Invert|Perspective|Posterization|Rotation|Saturation|Sharpness|Shear|Translation|Zoom)
    """,
    re.VERBOSE,
)
# Where other parts of a configuration come from: how weights began, what a training asked of them, kinds of numbers.
PARTS = re.compile(
    r"keras(\.src)?\.(initializers|regularizers|constraints|losses|metrics|optimizers|dtype_policies|random)(\.\w+)*"
    r"|keras\.src\.ops\.(core|image|linalg|math|nn|numpy)"
)
VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__"}
# Of those modules, what takes functions or other files: none of it has a place in a network for images.
FORBIDDEN = {"Lambda", "Map", "Scan", "Cond", "WhileLoop", "ForiLoop", "AssociativeScan", "VectorizedMap", "Switch"}


def read_keras(path: Path) -> bytes:
    """A `.keras` file's bytes, if they are hardly more than what is packed in them. Raises WeightsError."""
    try:
        with zipfile.ZipFile(path) as archive:  # which reads the end of the file alone
            packed = sum(entry.compress_size for entry in archive.infolist())
    except OSError:
        raise
    except Exception:  # as below
        raise _no_keras(str(path)) from None
    if path.stat().st_size > packed + SLACK:
        raise UnsafeFileError(f"{path}: expected a .keras file, received one that holds far more than its members")
    return path.read_bytes()


def require_safe(content: bytes, *, name: str = "the model") -> None:
    """Raise WeightsError for bytes that are no `.keras` file, UnsafeFileError for one that is more than layers."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            config = _config(archive, stored=len(content), name=name)
        # A compilation is what Keras is told to pass over.
        parts = list(objects({key: value for key, value in config.items() if key != "compile_config"}))
    except LucidateError:
        raise
    except Exception:  # zip's, each compression's and JSON's own, which have no common base but this one
        raise _no_keras(name) from None
    for part in parts:
        _require_known(part, name)


def metadata(content: bytes) -> dict[str, Any]:
    """What stands beside a network in its file; nothing of it is used by Keras."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            said = json.loads(archive.read("metadata.json"))
        return dict(said.get(OWN, {}))
    except Exception:  # as above; it is for `require_safe` to complain
        return {}


def write_metadata(path: Path, said: Mapping[str, Any]) -> None:
    """Let a `.keras` file say more of itself; Keras passes it over. The same file and words give the same bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    version = json.loads(members["metadata.json"])["keras_version"]
    members["metadata.json"] = json.dumps({"keras_version": version, OWN: dict(said)}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)


def objects(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every part of a configuration that Keras would build something from, however deep."""
    if depth > 4 * DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from objects(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner, depth + 1)


def _no_keras(name: str) -> WeightsError:
    return WeightsError(f"{name}: expected a .keras file, received a damaged one, or one of another kind")


def _config(archive: zipfile.ZipFile, *, stored: int, name: str) -> Any:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    others = [one for one in names if one not in MEMBERS]
    if others or len(set(names)) < len(names):
        raise UnsafeFileError(
            f"{name}: expected a .keras file of {', '.join(sorted(MEMBERS))}, received one with "
            f"{(others or names)[0][:80]!r} too; nothing was loaded"
        )
    if not {"config.json", "model.weights.h5"} <= set(names):
        raise KeyError
    if sum(entry.file_size for entry in entries) > EXPANSION * stored + SLACK:
        raise UnsafeFileError(f"{name}: expected a .keras file, received one that unpacks to many times its size")
    if archive.getinfo("config.json").file_size > LARGEST_CONFIG:
        raise UnsafeFileError(f"{name}: expected a config.json of at most 64 MB, received a larger one")
    return json.loads(archive.read("config.json"))


def _require_known(part: dict[str, Any], name: str) -> None:
    """Raise UnsafeFileError for what is not known to be harmless."""
    kind, module, registered = part.get("class_name"), part.get("module"), part.get("registered_name")
    if kind == "Lambda" or kind == "__lambda__":
        raise UnsafeFileError(
            f"{name}: expected layers alone, received a Lambda layer, which is Python code; nothing was executed: "
            "build the model of Keras's own layers, or convert it to ONNX where it was made"
        )
    if kind in VALUES:
        return
    known = isinstance(module, str) and isinstance(kind, str) and kind not in FORBIDDEN
    if known and registered in (None, kind):
        if kind in (MODELS | NUMBERS) and (module == "keras" or str(module).startswith("keras.")):
            return
        if LAYERS.fullmatch(str(kind)) and re.fullmatch(r"keras(\.src)?\.layers(\.\w+)*", str(module)):
            return
        # Classes alone: functions of those modules are lower case.
        if PARTS.fullmatch(str(module)) and re.fullmatch(r"[A-Z]\w*", str(kind)):
            return
    what = kind if module is None else f"{module}.{kind}"
    raise UnsafeFileError(
        f"{name}: expected Keras's own layers for images, received {str(registered or what)[:80]!r}, which is none; "
        "nothing was executed: convert the model to ONNX where it was made"
    )
