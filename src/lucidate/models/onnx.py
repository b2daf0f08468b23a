"""An ONNX file: read without trusting it, what it says of itself, and run as a module by ONNX Runtime, forward only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import Tensor, nn

from lucidate.core.errors import UnsafeFileError, WeightsError, raised_as
from lucidate.models.onnx_session import Unanswered, open_session, rehearse, run_in_parts
from lucidate.models.predictor import Refused

LIMIT = 2**31 - 1  # bytes of a protocol buffer
PIXELS: dict[int, str] = {
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
}
SPATIAL = {"Conv", "ConvTranspose", "MaxPool", "AveragePool"}  # their outputs are maps
KEEPING = {  # of a map these make a map
    *("Add", "Concat", "Div", "Identity", "Mul", "Sub"),
    *("BatchNormalization", "Dropout", "InstanceNormalization", "LRN"),
    *("Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu"),
    *("Sigmoid", "Softplus", "Swish", "Tanh"),
}
COUNTED = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT8}


def read_onnx(path: Path) -> bytes:
    """A file's graph as bytes that need no other file. Raises WeightsError, UnsafeFileError.

    Weights that lie in files of their own are taken in; they must lie in the model's folder, or below.
    """
    if path.stat().st_size > LIMIT:
        raise _too_large(path)
    content = path.read_bytes()
    model = parse(content, name=str(path))
    outside = [tensor for tensor in tensors(model) if is_external(tensor)]
    if not outside:
        return content
    total = len(content)
    for tensor in outside:
        _take_in(path, tensor)
        total += len(tensor.raw_data)
        if total > LIMIT:
            raise _too_large(path)
    try:
        return model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):
        raise _too_large(path) from None


def parse(content: bytes, *, name: str = "the model") -> Any:
    """An onnx.ModelProto. Raises WeightsError."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise WeightsError(f"{name}: expected an ONNX model, received a damaged file, or one of another kind") from None
    if not model.graph.node or not model.graph.output:
        raise WeightsError(f"{name}: expected an ONNX model, received a file without a graph")
    return model


def is_external(tensor: Any) -> bool:
    """Whether its values are in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data)


def tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a model: weights, constants, those of graphs within its graph, and of functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if isinstance(value, Iterable) else [value]:
            if isinstance(part, onnx.TensorProto):
                yield part
            else:
                yield from tensors(part)


def metadata(model: Any) -> dict[str, str]:
    """The texts that stand beside a graph, by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: Any, about: Mapping[str, str], *, keep: bool = True) -> None:
    """Let a graph say more of itself, in place. keep: besides what it says already, else in place of it."""
    merged = (metadata(model) if keep else {}) | dict(about)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, merged)


def with_outputs(model: Any, names: Iterable[str]) -> bytes:
    """The bytes of an onnx.ModelProto, its outputs exchanged for these values of its graph."""
    kept = list(model.graph.output)
    known = {one.name: one for one in kept}
    try:
        del model.graph.output[:]
        model.graph.output.extend([known.get(name) or onnx.ValueInfoProto(name=name) for name in names])
        content: bytes = model.SerializeToString()
    finally:
        del model.graph.output[:]
        model.graph.output.extend(kept)
    return content


class OnnxEngine:
    """An `external.Engine` for a graph given as bytes. It computes on the processor, wherever images lie.

    Feature maps become outputs of the graph while somebody looks at them.
    """

    differentiable = False

    def __init__(self, content: bytes, *, layout: str | None, outputs: str | None) -> None:
        """outputs: "logits" or "probabilities" picks one of several outputs by its name.

        Raises WeightsError for a graph that does not take one batch of images, or whose output is not clear,
        UnsafeFileError for one that reaches for other files: those that `read_onnx` makes do not.
        """
        self._model = parse(content)
        for tensor in tensors(self._model):
            if is_external(tensor):
                raise UnsafeFileError(
                    f"model: expected a graph with all weights inside, {tensor.name} is in another file"
                )
        graph = self._model.graph
        try:
            self._name, self.pixels, self.shape = _input_of(graph)
            answers, self.classes = _output_of(graph, outputs)
            maker: Any = next((node for node in graph.node if answers in node.output), None)
            axes = [one.i for one in maker.attribute if one.name == "axis"] if maker else []
            # Of (images, classes), along the classes.
            self.softmaxed = bool(maker and maker.op_type == "Softmax" and all(axis in (-1, 1) for axis in axes))
            self._answers = maker.input[0] if self.softmaxed else answers
            self.layers = _maps(graph)
            damaged = not all(isinstance(one, str) for one in (self._name, self._answers, *self.layers))
        except (TypeError, ValueError, IndexError):  # types that do not exist
            damaged = True
        if damaged:
            raise WeightsError("the model: expected an ONNX model, received a damaged file")
        front, back = self.shape[1] == 3, self.shape[3] == 3
        self.layout = None if front == back else "NCHW" if front else "NHWC"
        self._layout = layout or self.layout
        self.parameters, self.values = _count(graph)
        self._sessions: dict[tuple[str, ...], Any] = {}

    @property
    def metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(metadata(self._model))
        for key, text in found.items():
            with suppress(ValueError):
                found[key] = json.loads(text)
        return found

    def __call__(self, images: Tensor, through: Mapping[str, nn.Module]) -> Tensor:
        feed, wanted = self._feed(images), tuple(through)
        if wanted not in self._sessions:  # of those with maps, the last one is kept
            self._sessions = {key: session for key, session in self._sessions.items() if not key}
            self._sessions[wanted] = open_session(with_outputs(self._model, (self._answers, *wanted)))
        with raised_as(Refused, "model: expected a graph that can answer, received one that cannot"):
            answers, *maps = run_in_parts(self._sessions[wanted], feed, input=self._name, length=self.shape[0])
        for stand, seen in zip(through.values(), maps, strict=True):
            stand(torch.from_numpy(seen).to(images.device))
        return torch.from_numpy(answers).to(images.device)

    def rehearse(self, images: Tensor) -> Tensor:
        feed, content = self._feed(images), with_outputs(self._model, (self._answers,))
        try:
            answers = rehearse(content, feed, input=self._name, length=self.shape[0])
        except Unanswered as error:
            raise Refused(f"model: expected a graph that answers, received one that does not: {error}") from None
        return torch.from_numpy(answers).to(images.device)

    def scramble(self, images: Tensor, generator: torch.Generator) -> None:  # noqa: ARG002
        """As in `Engine`; statistics of BatchNormalization stay, a graph being in one piece."""
        for tensor in self._model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
                values = onnx.numpy_helper.to_array(tensor)
                noise = torch.randn(values.shape, generator=generator).numpy() * values.std()
                tensor.CopyFrom(onnx.numpy_helper.from_array(noise.astype(np.float32), tensor.name))
        self._sessions.clear()

    def _feed(self, images: Tensor) -> NDArray[Any]:
        """A normalized batch as the graph takes it. Raw pixels are whole numbers again."""
        images, side = images.detach().cpu(), images.shape[-1]
        fixed = self.shape[1:3] if self._layout == "NHWC" else self.shape[2:4]
        if any(one not in (None, side) for one in fixed):
            raise Refused(f"model: expected images of {fixed[0]}×{fixed[1]} pixels, received {side}×{side}")
        if self._layout == "NHWC":
            images = images.permute(0, 2, 3, 1)
        if self.pixels == "uint8":
            images = images.round().clamp(0, 255)
        return np.ascontiguousarray(images.numpy()).astype(self.pixels, copy=False)


def _take_in(path: Path, tensor: Any) -> None:
    """Read a tensor's bytes from the file that holds them, which must be in the model's folder, links followed."""
    from onnx.external_data_helper import load_external_data_for_tensor

    named = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    home = path.parent.resolve()
    odd = not named or Path(named).is_absolute() or ".." in Path(named).parts or any(one in named for one in ":\\\0")
    if odd or not (home / named).resolve().is_relative_to(home):
        raise UnsafeFileError(
            f"{path}: expected weights in files inside of its folder, {tensor.name} names {named[:80]!r}; nothing was "
            "read"
        )
    file = (home / named).resolve()
    if not file.is_file():
        raise WeightsError(f"{path}: expected the weights of {tensor.name} in {named} beside it, received no such file")
    if file.stat().st_size > LIMIT:
        raise _too_large(path)
    # onnx raises what its own check of paths, bounds and keys makes of them
    with raised_as(WeightsError, f"{path}: expected the weights of {tensor.name}, received none", limit=120):
        load_external_data_for_tensor(tensor, str(home))


def _too_large(path: Path) -> WeightsError:
    return WeightsError(f"{path}: expected a model of less than 2 GiB, weights included, received a larger one")


def _input_of(graph: Any) -> tuple[str, str, tuple[int | None, ...]]:
    """(name, type, shape) of a graph's input, which has four axes; None where any length may stand."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [one for one in graph.input if one.name not in weights]
    if len(inputs) != 1:
        raise WeightsError(
            f"the model: expected a graph with one input, a batch of images, received {len(inputs)} "
            f"({', '.join(one.name for one in inputs[:4])})"
        )
    name, kind, shape = inputs[0].name, inputs[0].type.tensor_type.elem_type, _shape(inputs[0])
    if kind not in PIXELS or len(shape) != 4:
        raise WeightsError(
            f"the model: expected an input of four axes in float32, float16 or uint8, received {name} of shape "
            f"{_words(shape)} in {onnx.TensorProto.DataType.Name(kind).lower()}"
        )
    return name, PIXELS[kind], shape


def _output_of(graph: Any, wanted: str | None) -> tuple[str, int | None]:
    """(name, columns) of the output that is asked."""
    named = [one for one in graph.output if one.name == wanted]
    if len(graph.output) > 1 and not named:
        raise WeightsError(
            f"the model: expected a graph with one output, or with one that is called {wanted or 'logits'}, received "
            f"{', '.join(one.name for one in graph.output[:4])}"
        )
    output = (named or list(graph.output))[0]
    shape = _shape(output)
    if len(shape) not in (0, 2):
        raise WeightsError(
            f"the model: expected answers of shape (images, classes), received {output.name} of shape {_words(shape)}"
        )
    return output.name, shape[1] if shape else None


def _shape(value: Any) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)


def _words(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"


def _maps(graph: Any) -> tuple[str, ...]:
    """Names of feature maps, in order."""
    found: dict[str, None] = {}
    for node in graph.node:
        if node.op_type in SPATIAL or (node.op_type in KEEPING and any(name in found for name in node.input)):
            found[node.output[0]] = None
    return tuple(found)


def _count(graph: Any) -> tuple[int, int]:
    """(weights that were trained, those and the statistics of BatchNormalization)."""
    statistics = {name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    sizes = {one.name: prod(one.dims) for one in graph.initializer if one.data_type in COUNTED}
    values = sum(sizes.values())
    return values - sum(sizes.get(name, 0) for name in statistics), values
