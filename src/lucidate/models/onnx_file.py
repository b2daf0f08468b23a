"""An ONNX file: read without trusting it, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from lucidate.core.errors import LucidateError, UnsafeFileError, WeightsError
from lucidate.core.text import one_line

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


@dataclass(frozen=True)
class Graph:
    """A graph as it stands in a file; None where it does not say.

    pixels: type of its input. shape: of its input, which has four axes. output: the one that is asked, with `classes`
    columns. before_softmax: where the output comes from if softmax is all that makes it. maps: feature maps, in order.
    """

    input: str
    pixels: str
    shape: tuple[int | None, ...]
    output: str
    classes: int | None
    before_softmax: str | None
    maps: tuple[str, ...]
    parameters: int
    values: int

    @property
    def layout(self) -> Literal["NCHW", "NHWC"] | None:
        """Where the three colors stand, if the shape leaves but one way."""
        front, back = self.shape[1] == 3, self.shape[3] == 3
        return None if front == back else "NCHW" if front else "NHWC"


def read_onnx(path: Path) -> bytes:
    """A file's graph as bytes that need no other file. Raises WeightsError, UnsafeFileError.

    Weights that lie in files of their own are taken in; they must lie in the model's folder, or below.
    """
    if path.stat().st_size > LIMIT:
        raise _too_large(path)
    content = path.read_bytes()
    model = parse(content, name=str(path))
    outside = [tensor for tensor in tensors(model.graph, model.functions) if is_external(tensor)]
    if not outside:
        return content
    total = len(content)
    for tensor in outside:
        _take_in(path, tensor)
        total += len(tensor.raw_data)
        if total > LIMIT:
            raise _too_large(path)
    try:
        content = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):
        raise _too_large(path) from None
    if len(content) > LIMIT:
        raise _too_large(path)
    return content


def parse(content: bytes, *, name: str = "the model") -> Any:
    """An onnx.ModelProto. Raises WeightsError."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise WeightsError(f"{name}: expected an ONNX model, received a damaged file, or one of another kind") from None
    if not model.graph.node or not model.graph.output:
        raise WeightsError(f"{name}: expected an ONNX model, received a file without a graph")
    return model


def require_whole(model: Any) -> None:
    """Refuse a graph that reaches for other files: those that `read_onnx` makes do not. Raises UnsafeFileError."""
    for tensor in tensors(model.graph, model.functions):
        if is_external(tensor):
            raise UnsafeFileError(f"model: expected a graph with all weights inside, {tensor.name} is in another file")


def is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data)


def tensors(graph: Any, functions: Any = ()) -> Iterator[Any]:
    """Every tensor of a graph: weights, constants, those of graphs within it, and of its functions."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for nodes in (graph.node, *(function.node for function in functions)):
        for node in nodes:
            for attribute in node.attribute:
                yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
                sparse = [*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])]
                for one in (*sparse, *attribute.sparse_tensors):
                    yield from (one.values, one.indices)
                for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    yield from tensors(inner)


def describe(model: Any, *, outputs: str | None, name: str = "the model") -> Graph:
    """What a graph says of itself. outputs: "logits" or "probabilities" picks one of several outputs by its name.

    Raises WeightsError for a graph that does not take one batch of images, or whose output is not clear.
    """
    try:
        return _described(model.graph, outputs, name)
    except (TypeError, ValueError, IndexError):  # names that are no text, types that do not exist
        raise WeightsError(f"{name}: expected an ONNX model, received a damaged file") from None


def _described(graph: Any, outputs: str | None, name: str) -> Graph:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [one for one in graph.input if one.name not in weights]
    if len(inputs) != 1:
        raise WeightsError(
            f"{name}: expected a graph with one input, a batch of images, received {len(inputs)} "
            f"({', '.join(one.name for one in inputs[:4])})"
        )
    kind, shape = _type(inputs[0])
    if kind not in PIXELS or len(shape) != 4:
        raise WeightsError(
            f"{name}: expected an input of four axes in float32, float16 or uint8, received {inputs[0].name} of shape "
            f"{_words(shape)} in {onnx.TensorProto.DataType.Name(kind).lower()}"
        )
    named = [one for one in graph.output if one.name == outputs]
    if len(graph.output) > 1 and not named:
        raise WeightsError(
            f"{name}: expected a graph with one output, or with one that is called {outputs or 'logits'}, received "
            f"{', '.join(one.name for one in graph.output[:4])}"
        )
    output = (named or list(graph.output))[0]
    answer = _type(output)[1]
    if len(answer) not in (0, 2):
        raise WeightsError(
            f"{name}: expected answers of shape (images, classes), received {output.name} of shape {_words(answer)}"
        )
    maker = next((node for node in graph.node if output.name in node.output), None)
    softmax = maker is not None and maker.op_type == "Softmax" and not _axis(maker)
    parameters, values = _count(graph)
    maps = _maps(graph)
    before = maker.input[0] if maker is not None and softmax else None
    if not all(isinstance(one, str) for one in (inputs[0].name, output.name, before or "", *maps)):
        raise ValueError
    return Graph(
        input=inputs[0].name,
        pixels=PIXELS[kind],
        shape=shape,
        output=output.name,
        classes=answer[1] if answer else None,
        before_softmax=before,
        maps=maps,
        parameters=parameters,
        values=values,
    )


def metadata(model: Any) -> dict[str, Any]:
    """What stands beside a graph: texts, and values where they are JSON."""
    found: dict[str, Any] = {}
    for entry in model.metadata_props:
        try:
            found[entry.key] = json.loads(entry.value)
        except ValueError:
            found[entry.key] = entry.value
    return found


def with_outputs(model: Any, names: Iterable[str]) -> bytes:
    """The bytes of an onnx.ModelProto, its outputs exchanged for these values of its graph."""
    kept = [onnx.ValueInfoProto.FromString(one.SerializeToString()) for one in model.graph.output]
    known = {one.name: one for one in kept}
    try:
        del model.graph.output[:]
        model.graph.output.extend([known.get(name) or onnx.ValueInfoProto(name=name) for name in names])
        content: bytes = model.SerializeToString()
    finally:
        del model.graph.output[:]
        model.graph.output.extend(kept)
    return content


def _take_in(path: Path, tensor: Any) -> None:
    """Read a tensor's bytes from the file that holds them."""
    from onnx.external_data_helper import load_external_data_for_tensor

    if _inside(path, tensor).stat().st_size > LIMIT:
        raise _too_large(path)
    try:
        load_external_data_for_tensor(tensor, str(path.parent.resolve()))
    except LucidateError:
        raise
    except Exception as error:  # onnx raises what its own check of paths, bounds and keys makes of them
        reason = one_line(error, limit=120)
        raise WeightsError(f"{path}: expected the weights of {tensor.name}, received none: {reason}") from None


def _inside(path: Path, tensor: Any) -> Path:
    """The file that holds a tensor, which must be in the model's folder, links followed."""
    place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    home = path.parent.resolve()
    if not place or Path(place).is_absolute() or ":" in place or "\\" in place or "\0" in place:
        raise _escapes(path, tensor, place)
    file = (home / place).resolve()
    if not file.is_relative_to(home) or ".." in Path(place).parts:
        raise _escapes(path, tensor, place)
    if not file.is_file():
        raise WeightsError(f"{path}: expected the weights of {tensor.name} in {place} beside it, received no such file")
    return file


def _escapes(path: Path, tensor: Any, place: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path}: expected weights in files inside of its folder, {tensor.name} names {place[:80]!r}; nothing was read"
    )


def _too_large(path: Path) -> WeightsError:
    return WeightsError(f"{path}: expected a model of less than 2 GiB, weights included, received a larger one")


def _type(value: Any) -> tuple[int, tuple[int | None, ...]]:
    kind = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim]
    return kind.elem_type, tuple(dims)


def _words(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"


def _axis(node: Any) -> bool:
    """Whether a softmax goes along another axis than that of the classes, of (images, classes)."""
    return any(attribute.name == "axis" and attribute.i not in (-1, 1) for attribute in node.attribute)


def _maps(graph: Any) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for node in graph.node:
        if node.op_type in SPATIAL or (node.op_type in KEEPING and any(name in found for name in node.input)):
            found[node.output[0]] = None
    return tuple(found)


def _count(graph: Any) -> tuple[int, int]:
    """(weights that were trained, those and the statistics of BatchNormalization)."""
    numbers = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT8}
    statistics = {name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    sizes = {one.name: _size(one) for one in graph.initializer if one.data_type in numbers}
    values = sum(sizes.values())
    return values - sum(sizes.get(name, 0) for name in statistics), values


def _size(tensor: Any) -> int:
    return prod(tensor.dims)
