"""The end of an ONNX graph run backwards: the gradient of one logit by an inner tensor, as more nodes of the graph.

ONNX Runtime computes a small network several times as fast as torch on one image, but knows no gradients. Those of a
network's last layers take a dozen operators, and one rule each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi, prod, sqrt
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LOGITS = "logits"
# A prefix of their own: graphs, and graphs within them, may use any plain name.
TARGET, ASKED, GRADIENT = "backward_target", "backward_asked", "backward_gradient"
Shapes = Mapping[str, tuple[int, ...]]


class Unsupported(Exception):
    """The way from the tensor to the logits holds an operator, or a form of one, without a rule."""


def with_gradient(model: onnx.ModelProto, *, at: str, shapes: Shapes) -> onnx.ModelProto:
    """The model with the gradient of a logit by tensor `at`, for one image at a time.

    Another input, TARGET: (1,) int64, the logit; below 0 the largest. Outputs: `at`; GRADIENT, shaped as it; ASKED,
    (1,) int64, the logit that was taken. shapes: of every tensor, as one image makes them.
    Raises Unsupported.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    backward = _Backward(graph, shapes)
    backward.begin()
    after = {at}  # what depends on `at`
    nodes = []
    for node in model.graph.node:
        if after & set(node.input):
            after |= set(node.output)
            nodes.append(node)
    if LOGITS not in after:
        raise Unsupported("the logits do not depend on it")
    for node in reversed(nodes):
        if node.output[0] not in backward.gradients:
            continue  # it leads elsewhere, to the probabilities
        for place, name in enumerate(node.input):
            if name in after:
                backward.pass_on(node, place)
    if at not in backward.gradients:
        raise Unsupported("no gradient comes to it")
    backward.add("Identity", [backward.gradients[at]], name=GRADIENT)
    graph.input.append(helper.make_tensor_value_info(TARGET, TensorProto.INT64, [1]))
    del graph.output[:]
    outputs = ((at, TensorProto.FLOAT, shapes[at]), (GRADIENT, TensorProto.FLOAT, shapes[at]))
    graph.output.extend(helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs)
    graph.output.append(helper.make_tensor_value_info(ASKED, TensorProto.INT64, [1]))
    return made


class _Backward:
    """A graph that grows at its end. gradients: by tensor, the name of the logit's gradient by it."""

    def __init__(self, graph: onnx.GraphProto, shapes: Shapes) -> None:
        self.graph = graph
        self.shapes = shapes
        self.gradients: dict[str, str] = {}
        self.values = {one.name: one for one in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.values[node.output[0]] = node.attribute[0].t

    def add(self, kind: str, inputs: list[str], *, name: str | None = None, **attributes: Any) -> str:
        """A node; the name of what it gives."""
        output = name or f"backward_{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: Any, kind: type[np.generic] = np.float32) -> str:
        tensor = numpy_helper.from_array(np.asarray(value, kind), f"backward_value_{len(self.graph.initializer)}")
        self.graph.initializer.append(tensor)
        return str(tensor.name)

    def value(self, name: str) -> NDArray[Any]:
        """Of a tensor that does not depend on the image."""
        if name not in self.values:
            raise Unsupported(f"{name} is computed")
        return numpy_helper.to_array(self.values[name])

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name] if name in self.shapes else tuple(self.value(name).shape)

    def begin(self) -> None:
        """One at the logit that was asked for, zero at the others."""
        best = self.add("ArgMax", [LOGITS], axis=1, keepdims=0)
        below = self.add("Less", [TARGET, self.constant([0], np.int64)])
        self.add("Where", [below, best, TARGET], name=ASKED)
        classes = self.constant(self.shape(LOGITS)[1], np.int64)
        self.gradients[LOGITS] = self.add("OneHot", [ASKED, classes, self.constant([0, 1])])

    def pass_on(self, node: onnx.NodeProto, place: int) -> None:
        """The gradient by one input of a node, added to what else comes to it."""
        if node.op_type not in RULES:
            raise Unsupported(f"{node.op_type} has no rule")
        found = RULES[node.op_type](self, node, place, self.gradients[node.output[0]])
        name = node.input[place]
        known = self.gradients.get(name)
        self.gradients[name] = found if known is None else self.add("Add", [known, found])

    def shaped(self, gradient: str, of: str) -> str:
        return self.add("Reshape", [gradient, self.constant(self.shape(of), np.int64)])

    def unbroadcast(self, gradient: str, node: onnx.NodeProto, name: str) -> str:
        """Summed over the axes along which a tensor was repeated to fit another."""
        whole, own = self.shape(node.output[0]), self.shape(name)
        padded = (1,) * (len(whole) - len(own)) + own
        axes = [axis for axis, (one, all_) in enumerate(zip(padded, whole, strict=True)) if one != all_]
        if axes:
            gradient = self.add("ReduceSum", [gradient, self.constant(axes, np.int64)], keepdims=1)
        return gradient if padded == own else self.shaped(gradient, name)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _same(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    return back.unbroadcast(gradient, node, node.input[place])


def _sub(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    return _same(back, node, place, gradient if place == 0 else back.add("Neg", [gradient]))


def _mul(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    return _same(back, node, place, back.add("Mul", [gradient, node.input[1 - place]]))


def _div(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    if place == 1:
        raise Unsupported("Div by what is computed")
    return _same(back, node, place, back.add("Div", [gradient, node.input[1]]))


def _relu(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:  # noqa: ARG001
    passes = back.add("Greater", [node.output[0], back.constant(0)])
    return back.add("Where", [passes, gradient, back.constant(0)])


def _sigmoid(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:  # noqa: ARG001
    slope = back.add("Mul", [node.output[0], back.add("Sub", [back.constant(1), node.output[0]])])
    return back.add("Mul", [gradient, slope])


def _erf(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    square = back.add("Mul", [node.input[place], node.input[place]])
    bell = back.add("Exp", [back.add("Neg", [square])])
    return back.add("Mul", [gradient, back.add("Mul", [bell, back.constant(2 / sqrt(pi))])])


def _reshape(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    return back.shaped(gradient, node.input[place])


def _transpose(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    sides = len(back.shape(node.input[place]))
    order = _attributes(node).get("perm", list(reversed(range(sides))))
    return back.add("Transpose", [gradient], perm=np.argsort(order).tolist())


def _mat_mul(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    weights = back.value(node.input[1])
    if place != 0 or weights.ndim != 2:
        raise Unsupported("MatMul of another form")
    return back.add("MatMul", [gradient, back.constant(weights.T)])


def _gemm(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    known = _attributes(node)
    if place != 0 or known.get("transA"):
        raise Unsupported("Gemm of another form")
    weights = back.value(node.input[1])
    turned = weights if known.get("transB") else weights.T
    return back.add("MatMul", [gradient, back.constant(turned * known.get("alpha", 1.0))])


def _axes(back: _Backward, node: onnx.NodeProto) -> tuple[int, ...]:
    sides = len(back.shape(node.input[0]))
    if node.op_type.startswith("Global"):
        return tuple(range(2, sides))
    given = _attributes(node).get("axes")
    if given is None and len(node.input) > 1:
        given = back.value(node.input[1]).tolist()
    if not given:
        raise Unsupported(f"{node.op_type} over all axes")
    return tuple(axis % sides for axis in given)


def _kept(back: _Backward, node: onnx.NodeProto, tensor: str) -> str:
    """Something in the shape of a reduction, its axes kept as ones."""
    axes, shape = _axes(back, node), back.shape(node.input[0])
    sides = [1 if axis in axes else side for axis, side in enumerate(shape)]
    return back.add("Reshape", [tensor, back.constant(sides, np.int64)])


def _spread(back: _Backward, node: onnx.NodeProto, gradient: str) -> str:
    return back.add("Expand", [_kept(back, node, gradient), back.constant(back.shape(node.input[0]), np.int64)])


def _mean(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:  # noqa: ARG001
    shape = back.shape(node.input[0])
    count = prod(shape[axis] for axis in _axes(back, node))
    return back.add("Mul", [_spread(back, node, gradient), back.constant(1 / count)])


def _largest(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:  # noqa: ARG001
    """Shared evenly among equals, as torch's amax does."""
    equal = back.add("Equal", [node.input[0], _kept(back, node, node.output[0])])
    mask = back.add("Cast", [equal], to=TensorProto.FLOAT)
    count = back.add("ReduceSum", [mask, back.constant(_axes(back, node), np.int64)], keepdims=1)
    return back.add("Mul", [back.add("Div", [mask, count]), _kept(back, node, gradient)])


def _max_pool(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    (pool,) = [one for one in back.graph.node if one.output[0] == node.output[0]]
    if len(pool.output) == 1:
        pool.output.append(f"{node.output[0]}_places")
    flat = back.constant([-1], np.int64)
    shape = back.shape(node.input[place])
    nothing = back.constant(np.zeros(prod(shape)))
    parts = [back.add("Reshape", [part, flat]) for part in (pool.output[1], gradient)]
    return back.shaped(back.add("ScatterElements", [nothing, *parts], axis=0, reduction="add"), node.input[place])


def _conv(back: _Backward, node: onnx.NodeProto, place: int, gradient: str) -> str:
    known = _attributes(node)
    weights = back.value(node.input[1])
    if place != 0 or known.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise Unsupported("Conv of another form")
    sizes = weights.shape[2:]
    strides = known.get("strides", [1] * len(sizes))
    dilations = known.get("dilations", [1] * len(sizes))
    pads = known.get("pads", [0] * 2 * len(sizes))
    reach = [rate * (size - 1) for rate, size in zip(dilations, sizes, strict=True)] * 2
    group = known.get("group", 1)
    around = [whole - pad for whole, pad in zip(reach, pads, strict=True)]
    if max(strides) == 1 and min(around) >= 0:
        # The same as the transposed convolution, by the operator that ONNX Runtime is quickest at.
        turned = weights.reshape(group, -1, *weights.shape[1:]).swapaxes(1, 2)[..., ::-1, ::-1]
        turned = turned.reshape(-1, weights.shape[0] // group, *sizes)
        inputs = [gradient, back.constant(np.ascontiguousarray(turned))]
        return back.add("Conv", inputs, pads=around, dilations=dilations, group=group, kernel_shape=list(sizes))
    given, taken = back.shape(node.output[0])[2:], back.shape(node.input[0])[2:]
    left = [
        taken[axis] - ((given[axis] - 1) * strides[axis] + reach[axis] + 1 - pads[axis] - pads[axis + len(sizes)])
        for axis in range(len(sizes))
    ]
    return back.add(
        "ConvTranspose",
        [gradient, node.input[1]],
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=group,
        output_padding=left,
        kernel_shape=list(sizes),
    )


RULES: dict[str, Callable[[_Backward, onnx.NodeProto, int, str], str]] = {
    "Add": _same,
    "Conv": _conv,
    "Div": _div,
    "Erf": _erf,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "GlobalMaxPool": _largest,
    "Identity": _same,
    "MatMul": _mat_mul,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "ReduceMax": _largest,
    "ReduceMean": _mean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Sigmoid": _sigmoid,
    "Squeeze": _reshape,
    "Sub": _sub,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
