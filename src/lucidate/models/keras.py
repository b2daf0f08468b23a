"""A `.keras` file, looked at before Keras sees it, and run as a module: Keras on torch, so that gradients flow through.

Such a file is a zip of `config.json`, from which Keras builds objects by their names, and HDF5 weights. A Lambda layer
is Python code, and some classes of Keras open files or pickles: it may hold layers of Keras with their weights, and
what is not known to be harmless is refused.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lucidate.core.errors import ExportError, LucidateError, UnsafeFileError, WeightsError, raised_as
from lucidate.models.predictor import Refused

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


def require_safe(content: bytes) -> None:
    """Raise WeightsError for bytes that are no `.keras` file, UnsafeFileError for one that is more than layers."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            config = _config(archive, stored=len(content))
        # A compilation is what Keras is told to pass over.
        parts = list(objects({key: value for key, value in config.items() if key != "compile_config"}))
    except LucidateError:
        raise
    except Exception:  # zip's, each compression's and JSON's own, which have no common base but this one
        raise _no_keras("the model") from None
    for part in parts:
        _require_known(part)


def metadata(content: bytes) -> dict[str, Any]:
    """What stands beside a network in its file; nothing of it is used by Keras."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return dict(json.loads(archive.read("metadata.json")).get(OWN, {}))
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
    if isinstance(value, dict) and "class_name" in value:
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(inner, depth + 1)


class KerasEngine:
    """An `external.Engine` for a file given as bytes, which is looked at before Keras loads it.

    Keras's maps are (B, H, W, C): those that somebody looks at are turned on their way.
    """

    differentiable = True
    layout: str | None = "NHWC"

    def __init__(self, content: bytes, *, device: torch.device | str = "cpu") -> None:
        require_safe(content)
        self._keras = keras_on_torch()
        self._device = str(device)
        self._through: Mapping[str, nn.Module] = {}
        # Keras, HDF5 and torch raise whatever a file makes them.
        words = "model: expected a .keras file that Keras can load, received one that it cannot"
        with raised_as(WeightsError, words), tempfile.TemporaryDirectory() as folder, self._keras.device(self._device):
            path = Path(folder) / "model.keras"  # Keras decides by a file's name
            path.write_bytes(content)
            self._net: Any = self._keras.saving.load_model(path, compile=False, safe_mode=True)
        inputs, outputs = getattr(self._net, "inputs", None), getattr(self._net, "outputs", None)
        if not inputs or not outputs:
            raise WeightsError(
                "model: expected a .keras file with an Input, which says what images it takes, received none"
            )
        shapes: list[tuple[int | None, ...]] = [tuple(one.shape) for one in (*inputs, *outputs)]
        if [len(shape) for shape in shapes] != [4, 2]:
            raise WeightsError(
                "model: expected one input (images, height, width, 3) and one output (images, classes), received "
                f"{', '.join(map(str, shapes))}"
            )
        self.shape, (_, self.classes) = shapes
        self.pixels = str(inputs[0].dtype)
        self.metadata = metadata(content)
        leaves = dict(_leaves(self._net))
        self.layers = tuple(leaves)
        for name, layer in leaves.items():
            layer.register_forward_hook(partial(self._pass, name))
        self.softmaxed = _leave_softmax_away(self._keras, self._net)
        self.values = int(self._net.count_params())
        self.parameters = sum(int(weight.value.numel()) for weight in self._net.trainable_weights)

    def __call__(self, images: Tensor, through: Mapping[str, nn.Module]) -> Tensor:
        shown = images.to(self._device).permute(0, 2, 3, 1)
        if not self.pixels.startswith("float"):
            shown = shown.round().clamp(0, 255).to(torch.uint8)
        self._through = through
        refused = raised_as(Refused, "model: expected a model that can answer, received one that cannot")
        try:
            with refused, self._keras.device(self._device):
                answers: Tensor = self._net(shown, training=False)
        finally:
            self._through = {}
        return answers.to(images.device)

    def rehearse(self, images: Tensor) -> Tensor:
        return self(images, {})  # layers that are known to be harmless have no loops

    @torch.no_grad()
    def scramble(self, images: Tensor, generator: torch.Generator) -> None:
        """As in `Engine`; statistics of BatchNormalization are those of the first images."""
        for weight in self._net.weights:
            value = weight.value
            if value.ndim > 1:
                noise = torch.randn(value.shape, generator=generator).to(value)
                weight.assign(noise * value.std())
        with ExitStack() as hooks:
            for _, layer in _leaves(self._net):
                if isinstance(layer, self._keras.layers.BatchNormalization):
                    hooks.callback(layer.register_forward_pre_hook(_measure).remove)
            self(images[:128], {})

    def _pass(self, name: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> Tensor | None:
        """What a layer gives, through whoever looks at it; None: as it is."""
        stand = self._through.get(name)
        if stand is None or not isinstance(output, Tensor) or output.ndim != 4:
            return None
        turned: Tensor = stand(output.permute(0, 3, 1, 2))
        return turned.permute(0, 2, 3, 1)


def _leaves(net: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(name, layer) of every layer that has none inside, in the order in which they stand."""
    for layer in net.layers:
        if getattr(layer, "layers", None):
            yield from _leaves(layer, f"{path}{layer.name}/")
        else:
            yield f"{path}{layer.name}", layer


def _leave_softmax_away(keras: Any, net: Any) -> bool:
    """Let a network that ends in softmax end before it, where certain answers differ still; whether it did."""
    last = net
    while getattr(last, "outputs", None):
        last = last.outputs[0]._keras_history.operation
    if getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
        return True
    if isinstance(last, keras.layers.Softmax) and last.axis in (-1, 1):
        last.register_forward_hook(lambda _, inputs, __: inputs[0])
        return True
    return False


def _measure(norm: Any, inputs: tuple[Tensor, ...]) -> None:
    """Give a BatchNormalization the mean and variance of what comes in."""
    axes = [axis for axis in range(inputs[0].ndim) if axis != norm.axis % inputs[0].ndim]
    norm.moving_mean.assign(inputs[0].mean(axes))
    norm.moving_variance.assign(inputs[0].var(axes, unbiased=False))


def keras_on_torch() -> ModuleType:
    """The `keras` module on the torch backend; its import takes seconds. Raises ExportError where it cannot be had."""
    before = os.environ.get("KERAS_BACKEND")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"  # read once, when Keras is imported
    try:
        import keras
    except ImportError:
        raise ExportError(
            "keras: expected Keras 3, which is not installed; get it with: pip install 'lucidate[keras]'"
        ) from None
    finally:
        if before is None:
            os.environ.pop("KERAS_BACKEND", None)
        else:
            os.environ["KERAS_BACKEND"] = before
    if keras.backend.backend() != "torch":
        raise ExportError(
            f"keras: expected Keras on torch, received it on {keras.backend.backend()}; set KERAS_BACKEND=torch"
        )
    return keras


def _no_keras(name: str) -> WeightsError:
    return WeightsError(f"{name}: expected a .keras file, received a damaged one, or one of another kind")


def _config(archive: zipfile.ZipFile, *, stored: int) -> Any:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    others = [one for one in names if one not in MEMBERS]
    if others or len(set(names)) < len(names):
        raise UnsafeFileError(
            f"the model: expected a .keras file of {', '.join(sorted(MEMBERS))}, received one with "
            f"{(others or names)[0][:80]!r} too; nothing was loaded"
        )
    if not {"config.json", "model.weights.h5"} <= set(names):
        raise KeyError
    if sum(entry.file_size for entry in entries) > EXPANSION * stored + SLACK:
        raise UnsafeFileError("the model: expected a .keras file, received one that unpacks to many times its size")
    if archive.getinfo("config.json").file_size > LARGEST_CONFIG:
        raise UnsafeFileError("the model: expected a config.json of at most 64 MB, received a larger one")
    return json.loads(archive.read("config.json"))


def _require_known(part: dict[str, Any]) -> None:
    """Raise UnsafeFileError for what is not known to be harmless."""
    kind, module, registered = part.get("class_name"), part.get("module"), part.get("registered_name")
    if kind == "Lambda" or kind == "__lambda__":
        raise UnsafeFileError(
            "the model: expected layers alone, received a Lambda layer, which is Python code; nothing was executed: "
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
        f"the model: expected Keras's own layers for images, received {str(registered or what)[:80]!r}, which is none; "
        "nothing was executed: convert the model to ONNX where it was made"
    )
