"""A run in another form: written, asked about every test image, and kept only if it answers as the original."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lucidate.core.atomic import atomic_path, atomic_write, sha256
from lucidate.core.errors import ExportError
from lucidate.core.machine import hardware
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard, softmax
from lucidate.core.registry import ENSEMBLE, choices
from lucidate.core.run import RunDir
from lucidate.export import keras, onnx, torch_program
from lucidate.export.parity import Parity, ask, compare, eval_images, latency, record
from lucidate.models.checkpoint import load_predictor
from lucidate.models.predictor import Views
from lucidate.predict.backends import views_inside
from lucidate.predict.infer import predict_rows

FORMATS = {"onnx": onnx.FORMAT, "keras": keras.FORMAT, "torch": torch_program.FORMAT}


@dataclass(frozen=True)
class Exported:
    """A copy that was proven.

    path: of the file. bytes: its size. views: that it holds inside; "members": of an ensemble, each member's own.
    reference: what it was compared with. latency_ms: milliseconds a call of 1 and of 32 images. note: what a reader of
    `parity` must know; "" where there is nothing.
    """

    format: str
    path: Path
    bytes: int
    views: str
    parity: Parity
    reference: str
    latency_ms: dict[str, float]
    note: str


def export_run(
    run: RunDir, kind: str, *, views: Views | None = None, out: Path | None = None, reporter: Reporter | None = None
) -> Exported:
    """Write a run's model as `kind` into its `export/`, or to `out`, after comparing it with torch.

    What was found stands in `parity.json` there, or in `OUT.parity.json` beside `out`.

    views: "one" leaves the recipe's test-time views away; of a Keras file they always are.
    Raises ExportError for a model that has no such form, and for a copy that does not answer as torch: nothing is kept.
    """
    reporter = reporter or Silent()
    if kind not in FORMATS:
        raise ExportError(f"--format: expected {choices(kind, list(FORMATS))}, received {kind!r}")
    form = FORMATS[kind]
    path = out or run.exports / form.file
    if path.suffix != (suffix := Path(form.file).suffix):
        raise ExportError(f"--out: expected a name that ends in {suffix}, received {path.name}")
    card = RunCard.load(run.card)
    asked: Views | None = "one" if form.one_view else views
    inside = views_inside(card, asked)
    if asked == card.recipe.predict.views and card.recipe.model.name != ENSEMBLE:
        asked = None  # what the run's own predictions were made with
    was_there = path.parent.exists()
    try:
        with atomic_path(path) as temporary:
            reporter.say(f"writing {path.name}")
            form.write(run, temporary, views=asked)
            exported = _proven(run, kind, temporary, path=path, views=inside, asked=asked, reporter=reporter)
    except BaseException:
        if not was_there:
            with suppress(OSError):
                path.parent.rmdir()
        raise
    said = {key: value for key, value in vars(exported).items() if key not in ("format", "parity")}
    made = {"threads": torch.get_num_threads(), "versions": _versions(form.packages), "hardware": hardware()}
    entry = {**said, "path": path.name, "sha256": sha256(path), **asdict(exported.parity), **made}
    if out is None:
        record(run, kind, entry)
    else:
        atomic_write(path.with_name(f"{path.name}.parity.json"), json.dumps({kind: entry}, indent=1).encode())
    return exported


def _proven(
    run: RunDir, kind: str, copy: Path, *, path: Path, views: str, asked: Views | None, reporter: Reporter
) -> Exported:
    """The copy, compared. Raises ExportError where it is not the same model."""
    shown = eval_images(run, reporter=reporter)
    notes = [f"made-up images: {shown.why}"] if shown.why else []
    answer = FORMATS[kind].open(copy)
    answers = ask(answer, shown, task=f"asking the {kind} file", reporter=reporter)
    parity = None
    if shown.known is not None and asked is None:
        reference, parity = "predictions/test.parquet", compare(answers, shown.known, split=shown.split)
        if not parity.holds:
            # Made on other hardware, or by another method: what counts is what the weights say here.
            notes.append(f"{reference} differs by {parity.max_abs_diff:.1e} from what the weights say here")
    if parity is None or not parity.holds:
        original = load_predictor(run, views=asked)  # on the processor, in float32
        logits = predict_rows(original, shown.store, shown.rows, reporter=reporter, task="asking the original")
        reference, parity = "torch", compare(answers, softmax(logits), split=shown.split)
    if not parity.holds:
        raise ExportError(
            f"--format {kind}: expected a copy that answers as torch to {parity.tolerance:g}, received one whose "
            f"probabilities differ by up to {parity.max_abs_diff:.2g}, with {parity.disagreements:,} other predictions "
            f"on {parity.images:,} {parity.split} images; nothing was kept"
        )
    if FORMATS[kind].one_view and asked is not None:
        notes.append("one view: a Keras file of stock layers cannot hold the recipe's test-time views")
    size, note = copy.stat().st_size, "; ".join(notes)
    return Exported(kind, path, size, views, parity, reference, latency(answer, shown), note)


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in ("lucidate", "torch", *packages):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
