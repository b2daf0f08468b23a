"""The ONNX graph that a run is served by: found in the run, else made from its weights and kept for the next start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import onnxruntime

from lucidate.core.atomic import atomic_write, sha256
from lucidate.core.errors import LucidateError, ServeError
from lucidate.core.records import RunCard
from lucidate.core.registry import ENSEMBLE, ONNX
from lucidate.core.run import RunDir
from lucidate.models.onnx_session import open_session
from lucidate.predict.backends import WEIGHTS_KEY, external_kind, graph_path, views_inside
from lucidate.serve.engine import INPUT, OUTPUT, Session
from lucidate.serve.settings import ServedViews

_makings: set[subprocess.Popen[str]] = set()  # processes that run now


def open_graph(run: RunDir, *, views: ServedViews, int8: bool, threads: int | None = None) -> Session:
    """What computes a run's answers: `images` (n, S, S, 3) uint8 → `logits` (n, K). From RUN/export/ where it fits.

    int8: the quantized graph, which must have been made before. A model that came as a file, which has no graph of
    ours, is asked as `lucidate predict` asks it. Members of an ensemble keep the views that they were judged with.
    Raises ServeError, RunError.
    """
    card = RunCard.load(run.card)
    digest = sha256(run.weights)
    if card.recipe.model.name == ENSEMBLE:
        views = "recipe"
    if int8:
        path = graph_path(run, "onnx-int8")
        if found := _found(path, {WEIGHTS_KEY: digest}, threads):
            return found
        came = "one of other weights" if path.exists() else "no file"
        raise ServeError(f"--int8: expected {path}, received {came}; make it by lucidate quantize {run.path}")
    options = card.recipe.model.options
    if card.recipe.model.name == ONNX and options.get("order") is None and (own := _exported(run, threads)):
        return own
    if external_kind(card):
        return _Module(run, views)
    inside = views_inside(card, "one" if views == "one" else None)
    for path, named in ((graph_path(run, "onnx"), inside), (graph_path(run, "served"), views)):
        if found := _found(path, {WEIGHTS_KEY: digest, "views": named}, threads):
            return found
    content = _made(run, digest, views=views)
    with suppress(OSError):  # a folder that cannot be written to costs seconds at each start, nothing else
        if os.access(run.path, os.W_OK):
            atomic_write(graph_path(run, "served"), content)
    return open_session(content, threads=threads)


def _found(path: Path, said: dict[str, str], threads: int | None) -> onnxruntime.InferenceSession | None:
    """A graph, if it says this of itself; from its bytes, so that nothing happens when its file goes."""
    if not path.is_file():
        return None
    with suppress(LucidateError):  # damaged: another one is made
        session = open_session(path.read_bytes(), threads=threads)
        if said.items() <= session.get_modelmeta().custom_metadata_map.items():
            return session
    return None


def _exported(run: RunDir, threads: int | None) -> onnxruntime.InferenceSession | None:
    """The file itself that a run was brought as, where `lucidate export` wrote it: it takes and gives what we want."""
    from safetensors import safe_open

    with safe_open(run.weights, framework="numpy") as weights:
        content = weights.get_tensor("file").tobytes()
    session = open_session(content, threads=threads)
    takes = [(one.name, one.type, len(one.shape)) for one in session.get_inputs()]
    gives = [one.name for one in session.get_outputs()]
    ours = {WEIGHTS_KEY, "class_names"} <= session.get_modelmeta().custom_metadata_map.keys()
    return session if ours and takes == [(INPUT, "tensor(uint8)", 4)] and OUTPUT in gives else None


class _Module:
    """A run's own module in the place of a session."""

    def __init__(self, run: RunDir, views: ServedViews) -> None:
        from lucidate.models.checkpoint import load_predictor

        self._predictor = load_predictor(run, views="one" if views == "one" else None)

    def run(self, output_names: Sequence[str], input_feed: dict[str, Any]) -> Any:
        assert tuple(output_names) == (OUTPUT,)
        return [self._predictor(input_feed[INPUT])]


def _made(run: RunDir, digest: str, *, views: ServedViews) -> bytes:
    """A graph of the run's weights, made by another process: torch stays out of this one, and the server answers on."""
    with TemporaryDirectory(prefix="lucidate-serve-") as folder:
        path = Path(folder) / "model.onnx"
        command = [sys.executable, "-W", "ignore", "-m", "lucidate.serve.graph", str(run.path), str(path)]
        making = subprocess.Popen([*command, views, digest], stderr=subprocess.PIPE, text=True)
        _makings.add(making)
        try:
            _, errors = making.communicate()
        finally:
            _makings.discard(making)
        if making.returncode:
            reason = errors.strip().rpartition("\n")[2].removeprefix("error: ")
            raise ServeError(reason or f"{run.path}: expected a model that has an ONNX form, but making it failed")
        return path.read_bytes()


def stop_making() -> None:
    """End the processes that make graphs, since nobody waits for them any more."""
    for making in list(_makings):
        making.kill()


def main() -> None:
    """`python -m lucidate.serve.graph RUN FILE VIEWS DIGEST`: a run's graph for the server, in a process of its own."""
    from lucidate.export.onnx import export_onnx, quick_graph, with_metadata  # loads torch

    run, path, views, digest = RunDir(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    one: Literal["one"] | None = "one" if views == "one" else None
    try:
        content = quick_graph(run, views=one)
        if content is None:
            export_onnx(run, path, views=one)
            content = path.read_bytes()
        path.write_bytes(with_metadata(content, {WEIGHTS_KEY: digest, "views": views}, keep=False))
    except LucidateError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
