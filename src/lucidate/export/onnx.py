"""A run as an ONNX graph: pixels of any size in, probabilities out, nothing of ours needed to run it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lucidate.core.atomic import atomic_path, sha256
from lucidate.core.errors import ExportError, LucidateError, raised_as
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.export.parity import Answer, Format, is_close
from lucidate.export.torch_program import exportable, silent, traced
from lucidate.models.onnx import set_metadata
from lucidate.models.onnx_session import open_session
from lucidate.models.predictor import InferenceModel, TorchPredictor, Views
from lucidate.predict.backends import FILES, WEIGHTS_KEY, views_inside

OPSET = 18  # the first whose Resize knows antialiasing
IR_VERSION = 8  # that opset's own: older runtimes refuse newer ones
RUNTIMES = ">=1.16"  # whose antialiased Resize takes uint8
LIMIT = 2**31 - 1  # bytes of a file in protocol buffers
PIXELS = "pixels"  # images once they are of the model's size
INPUT, OUTPUTS = "images", ["logits", "probabilities"]
# Brings images of any size to the model's, as `data.decode.resize` does; those of the right size stay bit by bit.
# The shorter side is brought to the size by a bicubic filter that widens as it shrinks (Pillow's, coefficient -0.5,
# on whole numbers), and the center is cropped; halves round to even, as in Python. Differences from Pillow: one gray
# value in a thousandth of the pixels; where an image is over three times too large, up to some gray values, since
# Pillow then averages first; and where one is over twice as high as wide, since Pillow then filters columns before
# rows, which shows where values are cut off. Casts are to INT32 (6), BOOL (9), FLOAT (1) and INT64 (7).
RESIZE = """
resize (uint8[BATCH, height, width, 3] images) => (uint8[BATCH, SIDE, SIDE, 3] pixels)
<int64[4] pixels_shape = {-1, SIDE, SIDE, 3}, int64[2] size_sides = {SIDE, SIDE}, int64[1] size_one = {SIDE},
 int64[1] four = {4}, float[1] half = {0.5}, int64[2] height_width = {1, 2}>
{
   sides = Shape <end = 3, start = 1> (images)
   equal_sides = Equal (sides, size_sides)
   equal_numbers = Cast <to = 6> (equal_sides)
   equal_number = ReduceMin <keepdims = 0> (equal_numbers)
   is_of_size = Cast <to = 9> (equal_number)
   pixels = If (is_of_size) <else_branch = other_size () => (uint8[BATCH, SIDE, SIDE, 3] resized) {
      short = ReduceMin <keepdims = 1> (sides)
      longest = Mul (short, four)
      kept = Min (sides, longest)
      strip_rest = Sub (sides, kept)
      strip_rest_f = Cast <to = 1> (strip_rest)
      strip_half = Mul (strip_rest_f, half)
      strip_whole = Round (strip_half)
      strip_start = Cast <to = 7> (strip_whole)
      strip_end = Add (strip_start, kept)
      strip = Slice (images, strip_start, strip_end, height_width)
      scaled = Mul (kept, size_one)
      floored = Div (scaled, short)
      target = Max (floored, size_sides)
      planes = Transpose <perm = [0, 3, 1, 2]> (strip)
      planes_front = Shape <end = 2, start = 0> (planes)
      planes_sides = Concat <axis = 0> (planes_front, target)
      filtered = Resize <antialias = 1, coordinate_transformation_mode = "half_pixel", cubic_coeff_a = -0.5,
                         exclude_outside = 1, mode = "cubic"> (planes, "", "", planes_sides)
      filtered_back = Transpose <perm = [0, 2, 3, 1]> (filtered)
      center_rest = Sub (target, size_sides)
      center_rest_f = Cast <to = 1> (center_rest)
      center_half = Mul (center_rest_f, half)
      center_whole = Round (center_half)
      center_start = Cast <to = 7> (center_whole)
      center_end = Add (center_start, size_sides)
      center = Slice (filtered_back, center_start, center_end, height_width)
      resized = Reshape (center, pixels_shape)
   }, then_branch = same_size () => (uint8[BATCH, SIDE, SIDE, 3] as_is) {
      as_is = Reshape (images, pixels_shape)
   }>
}
"""


def export_onnx(run: RunDir, path: Path, *, views: Views | None = None) -> None:
    """Write a run's model as a graph for ONNX Runtime, whole or not at all.

    Input `images`: uint8 (batch, height, width, 3), RGB, of any size; those that are not of the model's are resized as
    by `data.decode.resize`. Outputs `logits` and `probabilities`: (batch, K) float32.
    views: in place of the recipe's; of an ensemble, of every member's. Raises ExportError for a model that cannot be
    traced.
    """
    card = RunCard.load(run.card)
    model = _converted(traced(run, views=views))
    resized_to(model, Preprocess.from_dict(card.preprocess).size)
    set_metadata(model, {**describe(card, views=views), WEIGHTS_KEY: sha256(run.weights)})
    content = model.SerializeToString(deterministic=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def describe(card: RunCard, *, views: Views | None = None) -> dict[str, str]:
    """What a graph says of itself: texts, most of them JSON."""
    import onnxruntime

    run_card = {
        "name": card.name,
        "created": card.created,
        "model": card.model.model_dump(),
        "data": {"dataset": card.data.dataset, "pack": card.data.pack, "image_size": card.data.image_size},
        "results": card.results.model_dump(),
        "seed": card.seed,
        "commit": card.commit,
        "versions": card.versions,
        "notes": card.notes,
    }
    return {
        "class_names": json.dumps(card.classes),
        "preprocess": json.dumps({**card.preprocess, "input": "uint8 RGB, 0 to 255", "inside": True}),
        "views": views_inside(card, views),
        "passport": json.dumps(run_card),
        "opset": str(OPSET),
        "onnxruntime": json.dumps({"checked": onnxruntime.__version__, "range": RUNTIMES}),
    }


def quick_graph(run: RunDir, *, views: Views | None = None) -> bytes | None:
    """A graph by torch's older exporter, ten times as quick as the newer; None where it cannot, or answers otherwise.

    For images of the model's size; it says nothing of itself. That exporter is on its way out of torch, and knows fewer
    operators: `export_onnx` uses the newer one, and so must whoever gets None. Raises ExportError as that does.
    """
    model, size = exportable(run, views=views), RunCard.load(run.card).data.image_size
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    return _quickly(model, images, outputs=OUTPUTS)


def embedding_graph(predictor: TorchPredictor, images: NDArray[np.uint8]) -> Answer | None:
    """What a network's last layer sees, by ONNX Runtime: uint8 images (B, S, S, 3) → (B, D) float32.

    images: four or more, to try it on. None where the quick exporter cannot, or answers otherwise.
    """
    content = _quickly(EmbeddingModel(predictor.module).eval(), images, outputs=["embeddings"])
    if content is None:
        return None
    return ask_onnx(content, output="embeddings")


class EmbeddingModel(nn.Module):
    """uint8 images (B, S, S, 3) → embeddings (B, D)."""

    def __init__(self, asked: InferenceModel) -> None:
        super().__init__()
        self.asked = asked

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.asked.model
        embeddings: Tensor = network.embed(self.asked.prepare(images))
        return embeddings


def _quickly(model: nn.Module, pixels: NDArray[np.uint8], *, outputs: list[str]) -> bytes | None:
    """A graph from a module's trace, if its first output is the module's own for some images, in any number."""
    images, file = torch.from_numpy(pixels), io.BytesIO()
    try:
        with torch.inference_mode(), silent():
            answer = model(images)
            expected = (answer if isinstance(answer, Tensor) else answer[0]).numpy()
            torch.onnx.export(
                model,
                (images,),
                file,  # type: ignore[arg-type]  # documented for this exporter
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (INPUT, *outputs)},
            )
        session = open_session(file.getvalue(), threads=1)
        parts = [slice(0, 4), slice(0, 1)]  # a batch that the tracer took for a constant shows here
        answers = [session.run(outputs[:1], {INPUT: pixels[part]})[0] for part in parts]
        good = all(is_close(given, expected[part], least=1.0) for given, part in zip(answers, parts, strict=True))
    except LucidateError:
        raise
    except Exception:  # an exporter meets whatever a model's code, or a newer torch, raises
        return None
    return file.getvalue() if good else None


def with_metadata(content: bytes, about: Mapping[str, str], *, keep: bool = True) -> bytes:
    """A graph that says more of itself. keep: besides what it says already, else in place of it."""
    model = onnx.load_model_from_string(content)
    set_metadata(model, about, keep=keep)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def ask_onnx(graph: Path | bytes, *, output: str = "probabilities") -> Answer:
    """A graph of ours as a function: uint8 images (B, H, W, 3) → one of its outputs, by default (B, K)."""
    session = open_session(graph)
    return lambda images: session.run([output], {INPUT: images})[0]


def resized_to(model: Any, size: int) -> None:
    """Let a graph whose input `images` is uint8 (N, size, size, 3) take (N, H, W, 3), in place."""
    graph = model.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    resizing = onnx.parser.parse_graph(RESIZE.replace("SIDE", str(size)).replace("BATCH", batch))
    branches = {one.name: one.g.node for one in resizing.node[-1].attribute}
    for prefix, nodes in (("", resizing.node), ("", branches["then_branch"]), ("resize/", branches["else_branch"])):
        for node in nodes:
            node.name = prefix + node.output[0]
            node.ClearField("domain")  # as exporters leave it
    for node in graph.node:
        for place, source in enumerate(node.input):
            if source == INPUT:
                node.input[place] = PIXELS
    graph.input[0].CopyFrom(resizing.input[0])
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*resizing.node, *rest])
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in resizing.initializer}
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())


def _converted(program: torch.export.ExportedProgram) -> Any:
    """A program as an onnx.ModelProto from uint8 images of the model's size, stripped of where it was made."""
    refused = raised_as(ExportError, "--format: expected a model that has an ONNX form, received one without")
    with refused, silent(), redirect_stdout(io.StringIO()):  # the exporter prints its steps
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=OUTPUTS,
            optimize=True,
            verbose=False,
        )
    assert converted is not None  # it returns None only where it writes a file
    model = converted.model_proto
    if model.ByteSize() > LIMIT:
        raise ExportError(f"--format: expected a model of less than 2 GiB, received {model.ByteSize():,} bytes")
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "lucidate", ""
    graph = model.graph
    # The length of a batch is "batch" wherever a shape names it; the tracer makes up names of its own.
    batch = re.compile(rf"\b{re.escape(graph.input[0].type.tensor_type.shape.dim[0].dim_param)}\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = batch.sub("batch", side.dim_param)
    # Traces of the exporting machine, file by file and line by line.
    parts = (graph.node, graph.value_info, graph.input, graph.output, graph.initializer)
    for holder in (model, graph, *chain.from_iterable(parts)):
        del holder.metadata_props[:]
        holder.doc_string = ""
    return model


FORMAT = Format(file=FILES["onnx"], write=export_onnx, open=ask_onnx, packages=("onnx", "onnxruntime"))
