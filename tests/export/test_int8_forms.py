"""Float graphs in int8: what is rewritten stays the same function, and what is int8 runs as int8."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fakes import Listener
from lucidate.export.int8_choice import Histogram, growing, observe, ranked, span
from lucidate.export.int8_graph import Layer, dynamic, prepared, static
from lucidate.export.onnx import with_metadata
from lucidate.models.onnx_session import open_session

SIDE = 8


def conv_net() -> bytes:
    """Images → three convolutions, pooling before ReLU, GELU in pieces as exporters write it → logits."""
    random = np.random.default_rng(0)
    weights = {
        "parts.0.model.stem.weight": random.normal(0, 0.3, (8, 3, 3, 3)),
        "stem.bias": random.normal(0, 0.3, 8),
        "parts.0.model.body.0.weight": random.normal(0, 0.2, (16, 8, 3, 3)),
        "body.0.bias": random.normal(0, 0.3, 16),
        "parts.0.model.body.1.weight": random.normal(0, 0.1, (16, 16, 3, 3)),
        "body.1.bias": random.normal(0, 0.3, 16),
        "parts.0.model.head.weight": random.normal(0, 0.3, (5, 16)),
        "scale": np.array([1 / 64]),
        "root": np.array(np.sqrt(2)),
        "one": np.array(1.0),
        "half": np.array(0.5),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], name="planes", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"], name="scaled"),
        _conv("scaled", "stem", "stem"),
        helper.make_node("MaxPool", ["stem"], ["pooled"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["pooled"], ["positive"], name="relu"),
        _conv("positive", "body.0", "wide"),
        helper.make_node("MaxPool", ["wide"], ["smaller"], name="pool_wide", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["smaller"], ["kept"], name="relu_wide"),
        _conv("kept", "body.1", "last"),
        helper.make_node("Div", ["last", "root"], ["divided"], name="div"),
        helper.make_node("Erf", ["divided"], ["erf"], name="erf"),
        helper.make_node("Add", ["erf", "one"], ["raised"], name="add"),
        helper.make_node("Mul", ["half", "raised"], ["halved"], name="mul"),
        helper.make_node("Mul", ["last", "halved"], ["gelu"], name="gelu"),
        helper.make_node("ReduceMean", ["gelu", "axes"], ["features"], name="mean", keepdims=0),
        helper.make_node("Gemm", ["features", "parts.0.model.head.weight"], ["logits"], name="head", transB=1),
    ]
    initializers = [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in weights.items()]
    return _graph(nodes, [*initializers, numpy_helper.from_array(np.array([2, 3]), "axes")])


def products_net() -> bytes:
    """Images → two matrix products, as in transformers → logits."""
    random = np.random.default_rng(0)
    weights = {
        "up": random.normal(0, 0.2, (3, 64)),
        "down": random.normal(0, 0.2, (64, 5)),
        "scale": np.array([1 / 64]),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"], name="scaled"),
        helper.make_node("MatMul", ["scaled", "up"], ["wide"], name="product_up"),
        helper.make_node("Relu", ["wide"], ["positive"], name="relu"),
        helper.make_node("ReduceMean", ["positive", "axes"], ["mean"], name="mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "down"], ["logits"], name="product_down"),
    ]
    initializers = [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in weights.items()]
    return _graph(nodes, [*initializers, numpy_helper.from_array(np.array([1, 2]), "axes")])


def _conv(before: str, name: str, after: str) -> onnx.NodeProto:
    inputs = [before, f"parts.0.model.{name}.weight", f"{name}.bias"]
    return helper.make_node("Conv", inputs, [after], name=f"conv_{name}", pads=[1, 1, 1, 1])


def _graph(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> bytes:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph(nodes, "net", [images], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"class_names": "[]", "opset": "18", "onnxruntime": '{"range": ">=1.16"}'})
    return model.SerializeToString()


def pixels(count: int = 64, *, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def asked(content: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return open_session(content).run(["logits"], {"images": images})[0]


def ranges_of(content: bytes, method: str = "minmax") -> dict[str, tuple[float, float]]:
    floats = prepared(content)
    seen = observe(floats.model, floats.tensors, [pixels()])
    return {name: span(one, method) for name, one in seen.items()}  # type: ignore[arg-type]


def run_as(content: bytes, folder: Path) -> Counter[str]:
    """Operators that ONNX Runtime runs in place of the graph's own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def test_a_graph_made_ready_is_the_same_function() -> None:
    floats = prepared(conv_net())
    kinds = [node.op_type for node in floats.model.graph.node]
    assert kinds.count("Gelu") == 1
    assert "Erf" not in kinds
    assert kinds.index("Relu") < kinds.index("MaxPool")
    onnx.checker.check_model(floats.model, full_check=True)
    metadata = {one.key: one.value for one in floats.model.metadata_props}
    assert metadata == {"class_names": "[]", "opset": "20", "onnxruntime": '{"range": ">=1.17"}'}
    images = pixels()
    np.testing.assert_allclose(asked(floats.model.SerializeToString(), images), asked(conv_net(), images), atol=1e-5)


def test_what_is_no_gelu_stays_as_it_is() -> None:
    model = onnx.load_from_string(conv_net())
    half = next(one for one in model.graph.initializer if one.name == "half")
    half.CopyFrom(numpy_helper.from_array(np.array(0.4, np.float32), "half"))
    floats = prepared(model.SerializeToString())
    assert "Erf" in {node.op_type for node in floats.model.graph.node}
    assert floats.model.opset_import[0].version == 18


def test_layers_are_named_as_in_the_model_and_the_first_convolution_stays_float() -> None:
    floats = prepared(conv_net())
    assert [layer.name for layer in floats.layers] == ["body.0", "body.1", "head"]
    assert floats.layers[0] == Layer("conv_body.0", "body.0", 16 * 8 * 9)
    assert floats.always_float == ("stem",)
    assert floats.mode == "static"


def test_static_int8_computes_in_int8_and_stays_close(tmp_path: Path) -> None:
    content, images = conv_net(), pixels(seed=2)
    int8 = static(prepared(content), ranges_of(content), left=(), reduce_range=False)
    exact, close = asked(content, images), asked(int8, images)
    assert 0 < np.abs(close - exact).max() < 0.05 * np.ptp(exact)
    kinds = run_as(int8, tmp_path)
    assert kinds["QLinearConv"] == 2
    assert kinds["Conv"] == 1
    assert kinds["QGemm"] == 1
    assert kinds["Relu"] == kinds["Gemm"] == 0  # ReLU is where int8 begins: at zero
    # Logits of 8 bits would be few values that tie.
    assert len(np.unique(close)) > 256


def test_layers_left_in_float_are_not_touched(tmp_path: Path) -> None:
    content, images = conv_net(), pixels(seed=2)
    floats, ranges = prepared(content), ranges_of(content)
    everything = frozenset(layer.node for layer in floats.layers)
    kinds = run_as(static(floats, ranges, left=("conv_body.0",), reduce_range=False), tmp_path)
    assert (kinds["QLinearConv"], kinds["Conv"] + kinds["FusedConv"]) == (1, 2)
    none = asked(static(floats, ranges, left=everything, reduce_range=False), images)
    np.testing.assert_allclose(none, asked(content, images), atol=1e-5)


def test_reduced_weights_have_seven_bits() -> None:
    floats, ranges = prepared(conv_net()), ranges_of(conv_net())

    def largest(reduce_range: bool) -> int:
        model = onnx.load_from_string(static(floats, ranges, left=(), reduce_range=reduce_range))
        held = [numpy_helper.to_array(one) for one in model.graph.initializer if one.data_type == TensorProto.INT8]
        return max(int(np.abs(values.astype(int)).max()) for values in held if values.ndim > 1)

    assert largest(False) == 127
    assert largest(True) <= 64


def test_matrix_products_become_dynamic_int8(tmp_path: Path) -> None:
    content, images = products_net(), pixels(seed=2)
    floats = prepared(content)
    assert floats.mode == "dynamic"
    assert [layer.name for layer in floats.layers] == ["product_up", "product_down"]
    int8 = dynamic(floats, left=(), reduce_range=False)
    exact, close = asked(content, images), asked(int8, images)
    assert 0 < np.abs(close - exact).max() < 0.05 * np.ptp(exact)
    assert run_as(int8, tmp_path)["MatMul"] == 0
    one = onnx.load_from_string(dynamic(floats, left=("product_up",), reduce_range=False))
    assert [node.name for node in one.graph.node if node.op_type == "MatMul"] == ["product_up"]
    metadata = {each.key: each.value for each in onnx.load_from_string(int8).metadata_props}
    assert metadata == {"class_names": "[]", "opset": "18", "onnxruntime": '{"range": ">=1.16"}'}


def test_metadata_is_added_to() -> None:
    model = onnx.load_from_string(with_metadata(conv_net(), {"quantized": "yes"}))
    assert {one.key: one.value for one in model.metadata_props}["quantized"] == "yes"
    assert {one.key: one.value for one in model.metadata_props}["class_names"] == "[]"


def test_what_is_observed_is_what_the_graph_computes() -> None:
    floats, images, listener = prepared(conv_net()), pixels(), Listener()
    seen = observe(floats.model, ("positive", "last"), [images[:40], images[40:]], reporter=listener)
    model = onnx.load_from_string(conv_net())
    model.graph.output.append(onnx.ValueInfoProto(name="last"))
    (values,) = open_session(model.SerializeToString()).run(["last"], {"images": images})
    assert seen["last"].low == pytest.approx(values.min(), abs=1e-5)
    assert seen["last"].high == pytest.approx(values.max(), abs=1e-5)
    assert seen["last"].counts.sum() == values.size
    middle = seen["last"].centers[np.searchsorted(seen["last"].counts.cumsum(), values.size / 2)]
    assert middle == pytest.approx(np.median(values), abs=0.02)
    assert seen["positive"].low == 0
    assert listener.advanced[-1][1] == listener.advanced[-1][2]


def histogram(values: NDArray[np.float64]) -> Histogram:
    counts, edges = np.histogram(values, 2048)
    return Histogram(float(edges[0]), float(edges[-1]), counts)


def test_ranges_are_cut_as_their_methods_say() -> None:
    values = np.random.default_rng(0).normal(size=200_000)
    values[0], values[1] = 15.0, -12.0  # what a range should not be spent on
    seen = histogram(values)
    assert span(seen, "minmax") == (-12.0, 15.0)
    low, high = span(seen, "percentile")
    expected = np.quantile(values, [0.00005, 0.99995])
    np.testing.assert_allclose([low, high], expected, atol=0.05)
    best = span(seen, "mse")
    assert error(values, *best) < 0.8 * error(values, -12.0, 15.0)
    grid = [(low, high) for low in np.arange(-12, -3, 0.5) for high in np.arange(4, 15.5, 0.5)]
    assert error(values, *best) < 1.05 * min(error(values, *each) for each in grid)


def error(values: NDArray[np.float64], low: float, high: float) -> float:
    """Mean squared error of 8 bits, by quantizing."""
    step = (high - low) / 255
    return float(np.square(np.rint((values.clip(low, high) - low) / step) * step + low - values).mean())


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_zero_is_in_every_range(method: str) -> None:
    for values in (np.linspace(3, 5, 1000), np.linspace(-5, -3, 1000), np.zeros(1000)):
        low, high = span(histogram(values), method)  # type: ignore[arg-type]
        assert low <= 0 <= high


def test_layers_are_ranked_by_what_each_one_alone_moves() -> None:
    layers = [Layer(name, name, 1) for name in "abcd"]
    harm = {"a": 0.1, "b": -2.0, "c": 0.0, "d": 1.0}
    exact = np.zeros((3, 2), np.float32)

    def answer(left: frozenset[str]) -> NDArray[np.float32]:
        return exact + np.float32(sum(value for name, value in harm.items() if name not in left))

    ranking = ranked(layers, answer, exact)
    assert [layer.name for layer in ranking] == ["b", "d", "a", "c"]
    assert list(growing(ranking)) == [frozenset("b"), frozenset("bd")]
    assert list(growing(ranking[:1])) == [frozenset("b")]
    sizes = [len(left) for left in growing([Layer(str(n), str(n), 1) for n in range(60)])]
    assert sizes == sorted(set(sizes))
    assert sizes[:4] == [1, 2, 3, 4]
    assert sizes[-1] <= 30
