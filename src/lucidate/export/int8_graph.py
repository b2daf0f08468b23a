"""A float graph made ready for int8, and its int8 form, by ONNX Runtime's own quantizers.

Static: convolutions and dense layers compute in int8 between tensors whose ranges were measured before; weights have a
scale a channel and are symmetric, activations are uint8, which is what processors multiply with signed weights. The
first convolution stays in float: with three input channels it has too little to add up to gain by int8, and its input
stays exact. Dynamic, for transformers: matrix products alone, their inputs' ranges measured at each call.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from math import isclose, prod, sqrt
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import helper, numpy_helper

from lucidate.models.onnx import metadata, set_metadata

Mode = Literal["static", "dynamic"]
WEIGHTED = ("Conv", "Gemm", "MatMul")
CARRIERS = ("MaxPool", "Relu")  # work on int8 as it is, where what comes in is int8
GELU_OPSET, GELU_IR, GELU_RUNTIMES = 20, 9, ">=1.17"  # the first that have Gelu as one operator


@dataclass(frozen=True)
class Layer:
    """A layer with weights. node: its name in the graph; name: its weights' name in the model; values: how many."""

    node: str
    name: str
    values: int


@dataclass(frozen=True)
class Floats:
    """A float graph as `prepared` leaves it."""

    model: Any  # onnx.ModelProto

    @cached_property
    def weighted(self) -> list[tuple[Any, int]]:
        """Nodes with weights, in the graph's order, and how many they have."""
        sizes = {one.name: prod(one.dims) for one in self.model.graph.initializer}
        nodes = [node for node in self.model.graph.node if node.op_type in WEIGHTED and node.input[1] in sizes]
        return [(node, sizes[node.input[1]]) for node in nodes]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Layers that can compute in int8."""
        first = next((node for node, _ in self.weighted if node.op_type == "Conv"), None)
        taken = [
            (node, size)
            for node, size in self.weighted
            if (node is not first if self.mode == "static" else node.op_type == "MatMul")
        ]
        return tuple(Layer(node.name, _called(node), size) for node, size in taken)

    @cached_property
    def always_float(self) -> tuple[str, ...]:
        """Names of layers with weights that are not among `layers`."""
        taken = {layer.node for layer in self.layers}
        return tuple(_called(node) for node, _ in self.weighted if node.name not in taken)

    @cached_property
    def mode(self) -> Mode:
        """Dynamic where most weights are in matrix products, as in transformers."""
        products = sum(size for node, size in self.weighted if node.op_type == "MatMul")
        return "dynamic" if 2 * products > sum(size for _, size in self.weighted) else "static"

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """Activations whose ranges a static int8 form has to know."""
        layers = {layer.node for layer in self.layers}
        touched = [node for node in self.model.graph.node if node.name in layers or node.op_type in CARRIERS]
        return tuple(sorted({name for node in touched for name in (node.input[0], node.output[0])}))


def prepared(content: bytes) -> Floats:
    """A graph that `export_onnx` wrote, with the same answers, ordered and fused so that int8 layers meet."""
    model = onnx.load_from_string(content)
    del model.graph.value_info[:]
    _pool_last(model.graph)
    if _fuse_gelu(model.graph):
        model.opset_import[0].version = max(GELU_OPSET, model.opset_import[0].version)
        model.ir_version = max(GELU_IR, model.ir_version)
        runtimes = json.loads(metadata(model).get("onnxruntime", "{}")) | {"range": GELU_RUNTIMES}
        set_metadata(model, {"opset": str(model.opset_import[0].version), "onnxruntime": json.dumps(runtimes)})
    return Floats(onnx.shape_inference.infer_shapes(model))


def static(
    floats: Floats, ranges: Mapping[str, tuple[float, float]], *, left: Collection[str], reduce_range: bool
) -> bytes:
    """The graph with its layers in int8 but for the nodes `left`.

    ranges: (lowest, highest) of each of `floats.tensors`. reduce_range: weights of 7 bits, for processors whose
    multiplications of 8 bits overflow.
    """
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, QuantType, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    layers = [layer.node for layer in floats.layers if layer.node not in left]
    carriers = [node.name for node in floats.model.graph.node if node.op_type in CARRIERS]
    spans = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        deepcopy(floats.model),
        True,
        reduce_range,
        QuantType.QInt8,
        QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, spans),
        [*layers, *carriers],
        [],
        [*WEIGHTED, *CARRIERS],
        # Logits of 8 bits would tie; dense layers are small, and what they feed is better off with all digits.
        {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )
    quantizer.quantize_model()
    return _finished(quantizer.model.model, floats.model)


def dynamic(floats: Floats, *, left: Collection[str], reduce_range: bool) -> bytes:
    """The graph with its matrix products by weights in int8 but for the nodes `left`. reduce_range: as in `static`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = deepcopy(floats.model)
    del model.graph.value_info[:]  # it rewrites dense layers and would stumble over their old shapes
    add_pre_process_metadata(model)  # otherwise it says that it wants a preparation, which this had
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=[layer.node for layer in floats.layers if layer.node not in left],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return _finished(onnx.load(path), floats.model)


def _finished(model: Any, source: Any) -> bytes:
    """A quantizer's graph without its marks, with the metadata of the one that it was made from."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    return model.SerializeToString(deterministic=True)


def _called(node: Any) -> str:
    """What people call a node: its weights' name in the model, or its own where the exporter renamed them."""
    name: str = node.input[1]
    if not name.endswith(".weight"):
        return str(node.name)
    name = name.removesuffix(".weight").removeprefix("asked.model.").removeprefix("members.")
    # As graphs of earlier versions name them.
    return name.removeprefix("parts.").removeprefix("0.model.").replace(".model.", ".")


def _pool_last(graph: Any) -> None:
    """Max pooling → ReLU becomes ReLU → max pooling, in place: the same values, and ReLU melts into what is before."""
    consumers = _consumers(graph)
    for pool in list(graph.node):
        after = consumers.get(pool.output[0], []) if pool.op_type == "MaxPool" else []
        if [node.op_type for node in after] == ["Relu"]:
            relu = after[0]
            pool.op_type, relu.op_type = relu.op_type, pool.op_type
            relu.attribute.extend(pool.attribute)
            del pool.attribute[:]


def _fuse_gelu(graph: Any) -> bool:
    """x/√2 → Erf → +1 → ·0.5 → ·x becomes Gelu, in place; whether there was any.

    In pieces it reads its input twice, which keeps ONNX Runtime from fusing it once int8 stands around it.
    """
    constants = {one.name: one for one in graph.initializer}
    by_output = {name: node for node in graph.node for name in node.output}
    consumers = _consumers(graph)

    def follows(node: Any, kind: str, number: float | None) -> tuple[Any, str] | None:
        """The only consumer of a node and its other input, if it is of this kind with this constant, or with none."""
        after = consumers.get(node.output[0], [])
        if [one.op_type for one in after] != [kind]:
            return None
        other = next((name for name in after[0].input if name != node.output[0]), "")
        return (after[0], other) if _is(constants.get(other), number) else None

    fused: dict[str, Any] = {}  # by the name of the last node's output
    dropped: set[str] = set()
    for erf in graph.node:
        begin = by_output.get(erf.input[0]) if erf.op_type == "Erf" else None
        if begin is None or begin.op_type != "Div" or not _is(constants.get(begin.input[1]), sqrt(2)):
            continue
        if not (plus := follows(erf, "Add", 1.0)) or not (half := follows(plus[0], "Mul", 0.5)):
            continue
        if (last := follows(half[0], "Mul", None)) and last[1] == begin.input[0]:
            output = last[0].output[0]
            fused[output] = helper.make_node("Gelu", [last[1]], [output], name=last[0].name)
            dropped |= {node.output[0] for node in (begin, erf, plus[0], half[0])}
    if fused:
        kept = [fused.get(node.output[0], node) for node in graph.node if node.output[0] not in dropped]
        del graph.node[:]
        graph.node.extend(kept)
    return bool(fused)


def _is(constant: Any, number: float | None) -> bool:
    """Whether an initializer is this one number; None: whether there is none."""
    if constant is None or number is None:
        return constant is None and number is None
    value = numpy_helper.to_array(constant)
    return value.size == 1 and isclose(float(value.reshape(())), number, rel_tol=1e-6)


def _consumers(graph: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found
