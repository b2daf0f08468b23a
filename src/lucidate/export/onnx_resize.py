"""The part of a graph that brings images of any size to the model's, as `data.decode.resize` does.

The shorter side is brought to the size by a bicubic filter that widens as it shrinks (Pillow's, coefficient −0.5,
on whole numbers), and the center is cropped. Differences from Pillow: one gray value in a thousandth of the pixels;
where an image is over three times too large, up to some gray values, since Pillow then averages first; and where one
is over twice as high as wide, since Pillow then filters columns before rows, which shows where values are cut off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

PIXELS = "pixels"  # the graph's images once they are of the model's size


def resized_to(model: Any, size: int) -> None:
    """Let a graph whose input takes uint8 (N, size, size, 3) take (N, H, W, 3), in place. model: onnx.ModelProto.

    Images of the right size take a branch that leaves them as they are, bit by bit.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    name = graph.input[0].name
    for node in graph.node:
        for place, source in enumerate(node.input):
            if source == name:
                node.input[place] = PIXELS
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, [batch, "height", "width", 3]))
    out = helper.make_tensor_value_info
    shape = [batch, size, size, 3]
    same = helper.make_graph(
        [helper.make_node("Reshape", [name, "pixels_shape"], ["as_is"], name="as_is")],
        "same_size",
        [],
        [out("as_is", TensorProto.UINT8, shape)],
    )
    other = helper.make_graph(_resizing(name), "other_size", [], [out("resized", TensorProto.UINT8, shape)])
    first = [
        helper.make_node("Shape", [name], ["sides"], name="sides", start=1, end=3),
        helper.make_node("Equal", ["sides", "size_sides"], ["equal_sides"], name="equal_sides"),
        helper.make_node("Cast", ["equal_sides"], ["equal_numbers"], name="equal_numbers", to=TensorProto.INT32),
        helper.make_node("ReduceMin", ["equal_numbers"], ["equal_number"], name="equal_number", keepdims=0),
        helper.make_node("Cast", ["equal_number"], ["is_of_size"], name="is_of_size", to=TensorProto.BOOL),
        helper.make_node("If", ["is_of_size"], [PIXELS], name=PIXELS, then_branch=same, else_branch=other),
    ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *rest])
    graph.initializer.extend(_constants(size))


def _constants(size: int) -> list[Any]:
    from onnx import numpy_helper

    values = {
        "pixels_shape": np.array([-1, size, size, 3]),
        "size_sides": np.array([size, size]),
        "size_one": np.array([size]),
        "four": np.array([4]),
        "half": np.array([0.5], np.float32),
        "height_width": np.array([1, 2]),
    }
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def _resizing(name: str) -> list[Any]:
    """Nodes from `name` (N, H, W, 3) to "resized" (N, size, size, 3), both uint8."""
    from onnx import TensorProto, helper

    nodes: list[Any] = []

    def add(kind: str, inputs: str, output: str, **options: Any) -> None:
        nodes.append(helper.make_node(kind, inputs.split(","), [output], name=f"resize/{output}", **options))

    def cropped(image: str, have: str, want: str, output: str) -> None:
        """Slice the middle; halves round to even, as in Python."""
        add("Sub", f"{have},{want}", f"{output}_rest")
        add("Cast", f"{output}_rest", f"{output}_rest_f", to=TensorProto.FLOAT)
        add("Mul", f"{output}_rest_f,half", f"{output}_half")
        add("Round", f"{output}_half", f"{output}_whole")
        add("Cast", f"{output}_whole", f"{output}_start", to=TensorProto.INT64)
        add("Add", f"{output}_start,{want}", f"{output}_end")
        add("Slice", f"{image},{output}_start,{output}_end,height_width", output)

    add("ReduceMin", "sides", "short", keepdims=1)
    add("Mul", "short,four", "longest")
    add("Min", "sides,longest", "kept")
    cropped(name, "sides", "kept", "strip")
    add("Mul", "kept,size_one", "scaled")
    add("Div", "scaled,short", "floored")
    add("Max", "floored,size_sides", "target")
    add("Transpose", "strip", "planes", perm=[0, 3, 1, 2])
    add("Shape", "planes", "planes_front", start=0, end=2)
    add("Concat", "planes_front,target", "planes_sides", axis=0)
    add(
        "Resize",
        "planes,,,planes_sides",
        "filtered",
        mode="cubic",
        cubic_coeff_a=-0.5,
        antialias=1,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
    )
    add("Transpose", "filtered", "filtered_back", perm=[0, 2, 3, 1])
    cropped("filtered_back", "target", "size_sides", "center")
    add("Reshape", "center,pixels_shape", "resized")
    return nodes
