"""What computes a model's answers: torch, or ONNX Runtime on a graph that was exported from the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lucidate.core.atomic import sha256
from lucidate.core.errors import ExportError, RunError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import Predictions, RunCard
from lucidate.core.registry import ENSEMBLE
from lucidate.core.run import RunDir
from lucidate.data.run_data import open_data
from lucidate.data.splits import require_name
from lucidate.data.store import read_rows
from lucidate.models.session import open_session
from lucidate.predict.stopwatch import Stopwatch
from lucidate.predict.table import table_of

if TYPE_CHECKING:
    import torch

    from lucidate.models.tta import Views

GRAPHS = {"onnx": "model.onnx", "onnx-int8": "model.int8.onnx"}  # backend → file below a run's exports
BACKENDS = ("torch", *GRAPHS)
WEIGHTS_KEY = "weights_sha256"  # of a graph's metadata: the weights that it was made from
GRAPH_BATCH = 32  # images a call: more leave the cache and gain nothing


class Backend(Protocol):
    """A model ready to answer."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (B, K) of images (B, S, S, 3), 0 to 255, of the run's size."""


class Graph:
    """An exported graph: resizing, normalization and views are inside it. views: which these are."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.input = session.get_inputs()[0].name
        self.views = session.get_modelmeta().custom_metadata_map.get("views", "one")

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        (logits,) = self.session.run(["logits"], {self.input: images})
        return logits


def open_backend(name: str, run: RunDir, *, device: torch.device | str = "cpu") -> Backend:
    """A run's model behind one of `BACKENDS`.

    Raises ExportError where the graph is missing or was made from other weights, RunError for another name.
    """
    if name == "torch":
        from lucidate.predict.module import Module  # takes a second, which graphs need not wait

        return Module(run, device=device)
    if name not in GRAPHS:
        raise RunError(f"--backend: expected one of {', '.join(BACKENDS)}, received {name!r}")
    return open_graph(name, run)


def open_graph(name: str, run: RunDir) -> Graph:
    """An exported graph of the run's weights. Raises ExportError where there is none."""
    if graph := find_graph(name, run):
        return graph
    path = graph_path(run, name)
    came = "one of others" if path.exists() else "no file"
    raise ExportError(f"--backend: expected {path}, made from the run's weights, received {came}; {way_on(name, run)}")


def find_graph(name: str, run: RunDir) -> Graph | None:
    """The graph of a backend; None where there is none of the run's weights. Raises RunError for a broken one."""
    path = graph_path(run, name)
    if not path.exists():
        return None
    session = open_session(path)
    return None if _stale(session, path, run) else Graph(session)


def graph_path(run: RunDir, name: str) -> Path:
    """Where the graph of a backend lies."""
    return run.exports / GRAPHS[name]


def way_on(name: str, run: RunDir) -> str:
    """The command that makes a backend's graph."""
    command = f"lucidate quantize {run.path}" if name == "onnx-int8" else f"lucidate export {run.path} --format onnx"
    return f"make it by {command}"


def is_stale(path: Path, run: RunDir) -> bool:
    """Whether a graph was made from other weights than the run's: by their digest, or its age where it names none."""
    return _stale(open_session(path), path, run)


def views_inside(card: RunCard, views: Views | None = None) -> str:
    """Which views a copy holds: those of the recipe, or `views` in their place; "members": each member's own."""
    return views or ("members" if card.recipe.model.name == ENSEMBLE else card.recipe.predict.views)


def _stale(session: onnxruntime.InferenceSession, path: Path, run: RunDir) -> bool:
    known = session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY)
    if known is None:
        return path.stat().st_mtime < run.weights.stat().st_mtime
    return bool(known != sha256(run.weights))


def backend_logits(
    backend: Backend,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    batch: int = GRAPH_BATCH,
    reporter: Reporter | None = None,
    task: str = "predicting",
) -> NDArray[np.float32]:
    """Logits (M, K) of some rows (M,) of a store (N, S, S, 3), in order."""
    reporter, watch, parts = reporter or Silent(), Stopwatch(), []
    with watch.running():
        for start in range(0, len(rows), batch):
            parts.append(backend(read_rows(images, rows[start : start + batch])))
            done = start + len(parts[-1])
            reporter.advance(task, done, len(rows), f"{watch.rate(done):,.0f} images/s")
    return np.concatenate(parts)


def predict_split(
    run: RunDir,
    split: str,
    backend: Backend,
    *,
    name: str,
    reporter: Reporter | None = None,
    watch: Stopwatch | None = None,
) -> Predictions:
    """Predict one split of a run's own images by a graph; the table stands beside the one that torch made.

    The run's results remain those of torch. An opening of the test split counts all the same.
    """
    require_name(split)
    data = open_data(run, reporter=reporter)
    card, pack, rows = data.card, data.pack, data.splits.rows(split)
    with (watch or Stopwatch()).running():
        logits = backend_logits(backend, pack.images, rows, reporter=reporter, task=f"predicting {split}")
    predictions = table_of(pack, rows, logits, split=split, model=f"{card.recipe.model.name} ({name})")
    predictions.save(predictions_path(run, split, name))
    if split == "test":
        card.with_results(test_openings=card.results.test_openings + 1).save(run.card)
    return predictions


def predictions_path(run: RunDir, split: str, name: str) -> Path:
    """Where a backend's answers on a split lie: the plain name is torch's."""
    return run.predictions(split if name == "torch" else f"{split}-{name}")
