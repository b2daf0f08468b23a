"""A run as an ONNX graph: pixels of any size in, probabilities out, nothing of ours needed to run it."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lucidate.core.atomic import atomic_path, sha256
from lucidate.core.errors import ExportError, LucidateError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.core.text import one_line
from lucidate.data.preprocess import Preprocess
from lucidate.export.onnx_resize import resized_to
from lucidate.export.parity import Answer, Format, is_close
from lucidate.export.torch_program import exportable, silent, traced
from lucidate.models.onnx_session import open_session
from lucidate.models.predictor import InferenceModel, TorchPredictor, Views
from lucidate.predict.backends import FILES, WEIGHTS_KEY, views_inside

OPSET = 18  # the first whose Resize knows antialiasing
IR_VERSION = 8  # that opset's own: older runtimes refuse newer ones
RUNTIMES = ">=1.16"  # whose antialiased Resize takes uint8
LIMIT = 2**31 - 1  # bytes of a file in protocol buffers
INPUT, OUTPUTS = "images", ["logits", "probabilities"]


def export_onnx(run: RunDir, path: Path, *, views: Views | None = None) -> None:
    """Write a run's model as a graph for ONNX Runtime, whole or not at all.

    Input `images`: uint8 (batch, height, width, 3), RGB, of any size; those that are not of the model's are resized as
    by `data.decode.resize`. Outputs `logits` and `probabilities`: (batch, K) float32.
    views: in place of the recipe's; of an ensemble, of every member's. Raises ExportError for a model that cannot be
    traced.
    """
    card = RunCard.load(run.card)
    size = Preprocess.from_dict(card.preprocess).size
    model = _converted(traced(exportable(run, views=views), size=size))
    resized_to(model, size)
    about = {**describe(card, views=views), WEIGHTS_KEY: sha256(run.weights)}
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
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
    session = open_session(content)

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = session.run(["embeddings"], {INPUT: images})[0]
        return embeddings

    return answer


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
    before = {one.key: one.value for one in model.metadata_props} if keep else {}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {**before, **about})
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def ask_onnx(path: Path) -> Answer:
    """A graph of ours as a function: uint8 images (B, H, W, 3) → probabilities (B, K)."""
    session = open_session(path)

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run(["probabilities"], {INPUT: images})[0]
        return probabilities

    return answer


def _converted(program: torch.export.ExportedProgram) -> Any:
    """A program as an onnx.ModelProto from uint8 images of the model's size, stripped of where it was made."""
    try:
        with silent(), contextlib.redirect_stdout(io.StringIO()):  # the exporter prints its steps
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=OUTPUTS,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # operators that have no ONNX form, and whatever else a converter meets
        reason = one_line(error)
        raise ExportError(f"--format: expected a model that has an ONNX form, received one without: {reason}") from None
    assert converted is not None  # it returns None only where it writes a file
    model = converted.model_proto
    if model.ByteSize() > LIMIT:
        raise ExportError(f"--format: expected a model of less than 2 GiB, received {model.ByteSize():,} bytes")
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "lucidate", ""
    _name_batch(model)
    # Traces of the exporting machine, file by file and line by line.
    for holder in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        del holder.metadata_props[:]
        holder.doc_string = ""
    return model


def _name_batch(model: Any) -> None:
    """Call the length of a batch "batch" wherever a shape names it, in place; the tracer makes up names of its own."""
    graph = model.graph
    traced_name = re.compile(rf"\b{re.escape(graph.input[0].type.tensor_type.shape.dim[0].dim_param)}\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = traced_name.sub("batch", side.dim_param)


FORMAT = Format(file=FILES["onnx"], write=export_onnx, open=ask_onnx, packages=("onnx", "onnxruntime"))
