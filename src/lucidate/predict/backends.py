"""What computes a model's answers: torch, or ONNX Runtime on a graph that was exported from the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lucidate.core.atomic import sha256
from lucidate.core.errors import ExportError, RunError
from lucidate.core.records import RunCard
from lucidate.core.registry import ENSEMBLE, EXTERNAL
from lucidate.core.run import RunDir
from lucidate.models.onnx_session import OnnxPredictor

if TYPE_CHECKING:
    import torch

    from lucidate.models.predictor import Predictor, Views

FILES = {"onnx": "model.onnx", "onnx-int8": "model.int8.onnx", "served": "serve.onnx"}  # graphs below a run's exports
BACKENDS = ("torch", "onnx", "onnx-int8")
WEIGHTS_KEY = "weights_sha256"  # of a graph's metadata: the weights that it was made from


def open_predictor(name: str, run: RunDir, *, device: torch.device | str = "cpu") -> Predictor:
    """A run's model behind one of `BACKENDS`.

    Raises ExportError where the graph is missing or was made from other weights, RunError for another name.
    """
    if name == "torch":
        from lucidate.models.checkpoint import load_predictor  # takes a second, which graphs need not wait

        return load_predictor(run, device=device).folded()
    if name not in BACKENDS:
        raise RunError(f"--backend: expected one of {', '.join(BACKENDS)}, received {name!r}")
    return open_graph(name, run)


def open_graph(name: str, run: RunDir) -> OnnxPredictor:
    """An exported graph of the run's weights. Raises ExportError where there is none."""
    if graph := find_graph(name, run):
        return graph
    path = graph_path(run, name)
    came = "one of others" if path.exists() else "no file"
    make = f"quantize {run.path}" if name == "onnx-int8" else f"export {run.path} --format onnx"
    raise ExportError(
        f"--backend: expected {path}, made from the run's weights, received {came}; make it by lucidate {make}"
    )


def find_graph(name: str, run: RunDir) -> OnnxPredictor | None:
    """The graph of a backend; None where there is none of the run's weights. Raises RunError for a broken one."""
    return graph_at(graph_path(run, name), run)


def graph_at(path: Path, run: RunDir) -> OnnxPredictor | None:
    """A file's graph; None where there is none of the run's weights: by their digest, or age where it names none."""
    if not path.exists():
        return None
    graph = OnnxPredictor(path)
    known = graph.about.get(WEIGHTS_KEY)
    if known is None:
        return graph if path.stat().st_mtime >= run.weights.stat().st_mtime else None
    return graph if known == sha256(run.weights) else None


def graph_path(run: RunDir, name: str) -> Path:
    """Where the graph of a backend lies."""
    return run.exports / FILES[name]


def views_inside(card: RunCard, views: Views | None = None) -> str:
    """Which views a copy holds: those of the recipe, or `views` in their place; "members": each member's own."""
    return views or ("members" if card.recipe.model.name == ENSEMBLE else card.recipe.predict.views)


def external_kind(card: RunCard) -> str | None:
    """Format of a model, or of a member, that came as somebody's file; None of those that are lucidate's or timm's."""
    model = card.recipe.model
    names = [one["model"]["name"] for one in model.options["members"]] if model.name == ENSEMBLE else [model.name]
    return next((name for name in names if name in EXTERNAL), None)


def predictions_path(run: RunDir, split: str, name: str) -> Path:
    """Where a backend's answers on a split lie: the plain name is torch's."""
    return run.predictions(split if name == "torch" else f"{split}-{name}")
