"""Small ONNX graphs and `.keras` files, made by hand, as somebody else would bring them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

TENSORFLOW = Path(__file__).parent / "fixtures" / "tensorflow.keras"
KINDS = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16}


def weights(classes: int = 3, *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Of convolution → ReLU → mean → dense."""
    generator = np.random.default_rng(seed)
    shapes = {"filters": (4, 3, 3, 3), "bias": (4,), "dense": (classes, 4)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def logits(images: NDArray[Any], *, classes: int = 3, seed: int = 0) -> NDArray[np.float64]:
    """What the graph below computes, by NumPy. images: (B, 3, S, S)."""
    w = {name: value.astype(np.float64) for name, value in weights(classes, seed=seed).items()}
    return features(images, seed=seed).mean((2, 3)) @ w["dense"].T


def features(images: NDArray[Any], *, seed: int = 0) -> NDArray[np.float64]:
    """(B, 4, S, S): its only feature map."""
    w = {name: value.astype(np.float64) for name, value in weights(seed=seed).items()}
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.maximum(np.einsum("bchwij,kcij->bkhw", patches, w["filters"]) + w["bias"][:, None, None], 0)


def graph(
    path: Path,
    *,
    shape: tuple[int | str, ...] = ("n", 3, 8, 8),
    kind: str = "float32",
    layout: str = "NCHW",
    classes: int = 3,
    end: str | None = None,
    output: str = "answers",
    both: bool = False,
    metadata: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """A graph from images of this shape to logits; end: "Softmax", or "shares", probabilities made without one.

    both: outputs `logits` and `probabilities`.
    """
    nodes, last = [], "images"

    def add(operator: str, *more: str, out: str, **options: Any) -> None:
        nonlocal last
        nodes.append(helper.make_node(operator, [last, *more], [out], name=f"/{out}.0", **options))
        last = out

    if kind != "float32":
        add("Cast", out="numbers", to=TensorProto.FLOAT)
    if layout == "NHWC":
        add("Transpose", out="turned", perm=[0, 3, 1, 2])
    add("Conv", "filters", "bias", out="conv", pads=[1, 1, 1, 1])
    add("Relu", out="relu")
    add("GlobalAveragePool", out="mean")
    add("Flatten", out="flat")
    scores = "logits" if both else "scores" if end else output
    add("Gemm", "dense", out=scores, transB=1)
    if end == "Softmax" or both:
        add("Softmax", out="probabilities" if both else output)
    elif end == "shares":
        add("Sigmoid", out="odds")
        nodes.append(helper.make_node("ReduceSum", ["odds", "axis"], ["total"], keepdims=1))
        add("Div", "total", out=output)
    initial = [numpy_helper.from_array(value, name) for name, value in weights(classes, seed=seed).items()]
    initial += [numpy_helper.from_array(np.array([1]), "axis")] if end == "shares" else []
    names = ["logits", "probabilities"] if both else [output]
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [shape[0], classes]) for name in names]
    inputs = [helper.make_tensor_value_info("images", KINDS[kind], list(shape))]
    model = helper.make_model(
        helper.make_graph(nodes, "net", inputs, outs, initial), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    path.write_bytes(model.SerializeToString())
    return path


def outside(path: Path, location: str) -> Path:
    """A graph whose filters are said to lie in another file."""
    model = onnx.load(graph(path))
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(len(content)))
    path.write_bytes(model.SerializeToString())
    return path


def endless(path: Path) -> Path:
    """A graph whose loop has no end: its condition stays true, and it has no number of turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["before"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["", "true", "flat"], ["answers"], body=body)
    return _colors(path, loop, initial=[numpy_helper.from_array(np.array(True), "true")])


def doubling(path: Path, *, times: int) -> Path:
    """A graph of one call, of a function that calls another twice, which calls another twice …, 2**times in all."""
    known = [helper.make_opsetid("", 17), helper.make_opsetid("theirs", 1)]
    functions = [
        helper.make_function("theirs", "f0", ["a"], ["c"], [helper.make_node("Identity", ["a"], ["c"])], known)
    ]
    for number in range(1, times + 1):
        twice = [helper.make_node(f"f{number - 1}", [one], [other], domain="theirs") for one, other in ("ab", "bc")]
        functions.append(helper.make_function("theirs", f"f{number}", ["a"], ["c"], twice, known))
    call = helper.make_node(f"f{times}", ["flat"], ["answers"], domain="theirs")
    return _colors(path, call, functions=functions, opsets=known)


def _colors(path: Path, last: Any, *, initial: Any = (), functions: Any = (), opsets: Any = None) -> Path:
    """A graph from images to their mean color, and on to `answers` by one more node."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])
    answers = helper.make_tensor_value_info("answers", TensorProto.FLOAT, ["n", 3])
    model = helper.make_model(
        helper.make_graph([*nodes, last], "net", [images], [answers], initial),
        functions=functions,
        opset_imports=opsets or [helper.make_opsetid("", 17)],
    )
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def rewritten(change: Any = None, *, more: dict[str, bytes] | None = None) -> bytes:
    """TensorFlow's file with another configuration. change: called with it, and may change it in place."""
    with zipfile.ZipFile(TENSORFLOW) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    if change is not None:
        change(config)
    members["config.json"] = json.dumps(config).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, **(more or {})}.items():
            archive.writestr(name, content)
    return file.getvalue()


def write_toml(
    model: Path,
    *,
    classes: tuple[str, ...] = ("red", "green", "blue"),
    outputs: str | None = "logits",
    pixels: str = "size = 8\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]",
    more: str = "",
) -> Path:
    """The TOML beside a model."""
    lines = [f"classes = {json.dumps(list(classes))}", f'outputs = "{outputs}"' if outputs else "", more]
    path = model.with_suffix(".toml")
    path.write_text("\n".join([*lines, "[preprocess]", pixels]), encoding="utf-8")
    return path
