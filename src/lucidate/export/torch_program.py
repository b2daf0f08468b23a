"""A run as one module, pixels to probabilities, and as a torch.export program: what every other form is made from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lucidate.core.atomic import atomic_path
from lucidate.core.errors import ExportError, raised_as
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.export.parity import Format
from lucidate.models.checkpoint import load_predictor
from lucidate.models.ensemble import Ensemble
from lucidate.models.predictor import InferenceModel, Views
from lucidate.models.registry import Foldable
from lucidate.predict.backends import external_kind

EXAMPLE = 2  # images a tracer is shown: of a batch of one it would keep the one


class ExportableModel(nn.Module):
    """uint8 images (B, S, S, 3) of the run's size → logits and probabilities, (B, K) float32 each."""

    def __init__(self, asked: InferenceModel) -> None:
        super().__init__()
        self.asked = asked

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.asked(images)
        return logits, logits.softmax(-1)


def load_program(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """A program of ours as a function: uint8 images (B, S, S, 3) → probabilities (B, K)."""
    with silent():
        module = torch.export.load(path).module()

    @torch.inference_mode()
    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = module(torch.from_numpy(images))[1].numpy()
        return probabilities

    return answer


def exportable(run: RunDir, *, views: Views | None = None) -> ExportableModel:
    """What torch predicts with, all views of a batch at once, in evaluation mode on the processor.

    views: in place of the recipe's; of an ensemble, in place of every member's. Raises ExportError for a model that was
    brought as a file, which torch cannot look into.
    """
    require_own(RunCard.load(run.card))
    asked = load_predictor(run, views=views).module
    asked.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    asked.at_once = True
    for part in asked.modules():
        if isinstance(part, Ensemble):
            part.at_once = True
        if isinstance(part, Foldable):
            part.fold()
    return ExportableModel(asked).eval()


def require_own(card: RunCard) -> None:
    """Raise ExportError for a model that came, wholly or in part, as a file."""
    if kind := external_kind(card):
        raise ExportError(
            f"run: expected a model of lucidate's or timm's, received one that came as a file ({kind}): "
            "that file is its export"
        )


def traced(run: RunDir, *, views: Views | None = None) -> torch.export.ExportedProgram:
    """The run's module as a torch.export program for batches of any length. Raises ExportError."""
    model, size = exportable(run, views=views), Preprocess.from_dict(RunCard.load(run.card).preprocess).size
    images = torch.zeros(EXAMPLE, size, size, 3, dtype=torch.uint8)
    refused = raised_as(ExportError, "export: expected a model that torch.export can trace, received one it cannot")
    with silent(), refused:
        return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def export_program(run: RunDir, path: Path, *, views: Views | None = None) -> None:
    """Write a torch.export program: images (B, S, S, 3) uint8 of the run's size → (logits, probabilities).

    B may be anything; `torch.export.load(path).module()(images)` runs it without lucidate. Raises ExportError.
    """
    program = traced(run, views=views)
    program.example_inputs = None  # torch would pickle them
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # files of the exporting machine, line by line
    with atomic_path(path) as temporary, silent():
        torch.export.save(program, temporary)


@contextmanager
def silent() -> Iterator[None]:
    """Without what torch warns of itself while it traces, and NumPy of how Keras hands it torch's tensors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r"(?s).*the trace might not generalize|.*in the trace")
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        yield


FORMAT = Format(file="model.pt2", write=export_program, open=load_program, packages=("torch",))
