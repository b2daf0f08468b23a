"""A run in another form: written, asked about every test image, and kept only if it answers as the original."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from lucidate.core.atomic import atomic_path, atomic_write, sha256
from lucidate.core.errors import ExportError
from lucidate.core.machine import hardware
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard
from lucidate.core.registry import ENSEMBLE, choices
from lucidate.core.run import RunDir
from lucidate.export.eval_images import images_to_show, torch_probabilities
from lucidate.export.keras import export_keras, load_keras
from lucidate.export.onnx import export_onnx
from lucidate.export.parity import Answer, Parity, ask, compare, latency, record
from lucidate.export.torch_program import export_program, load_program
from lucidate.models.session import open_session
from lucidate.models.tta import Views
from lucidate.predict.backends import views_inside

Kind = Literal["onnx", "keras", "torch"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FILES: dict[Kind, str] = {"onnx": "model.onnx", "keras": "model.keras", "torch": "model.pt2"}
ENGINES = {"onnx": ("onnx", "onnxruntime"), "keras": ("keras", "torch"), "torch": ("torch",)}  # whose versions matter


@dataclass(frozen=True)
class Exported:
    """A copy that was proven.

    path: of the file. bytes: its size. views: that it holds inside; "members": of an ensemble, each member's own.
    reference: what it was compared with. latency_ms: milliseconds a call of 1 and of 32 images. note: what a reader of
    `parity` must know; "" where there is nothing.
    """

    format: Kind
    path: Path
    bytes: int
    views: str
    parity: Parity
    reference: str
    latency_ms: dict[str, float]
    note: str


def export_run(
    run: RunDir,
    kind: Kind,
    *,
    views: Views | None = None,
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> Exported:
    """Write a run's model as `kind` into its `export/`, or to `out`, after comparing it with torch.

    What was found stands in `parity.json` there, or in `OUT.parity.json` beside `out`.

    views: "one" leaves the recipe's test-time views away; of a Keras file they always are.
    Raises ExportError for a model that has no such form, and for a copy that does not answer as torch: nothing is kept.
    """
    reporter = reporter or Silent()
    if kind not in KINDS:
        raise ExportError(f"--format: expected {choices(kind, list(KINDS))}, received {kind!r}")
    path = out or run.exports / FILES[kind]
    if path.suffix != Path(FILES[kind]).suffix:
        raise ExportError(f"--out: expected a name that ends in {Path(FILES[kind]).suffix}, received {path.name}")
    card = RunCard.load(run.card)
    asked: Views | None = "one" if kind == "keras" else views
    inside = views_inside(card, asked)
    if asked == card.recipe.predict.views and card.recipe.model.name != ENSEMBLE:
        asked = None  # what the run's own predictions were made with
    was_there = path.parent.exists()
    try:
        with atomic_path(path) as temporary:
            reporter.say(f"writing {path.name}")
            _write(run, kind, temporary, views=asked)
            exported = _proven(run, kind, temporary, path=path, views=inside, asked=asked, reporter=reporter)
    except BaseException:
        if not was_there:
            with suppress(OSError):
                path.parent.rmdir()
        raise
    entry = _entry(exported, digest=sha256(path))
    if out is None:
        record(run, kind, entry)
    else:
        atomic_write(path.with_name(f"{path.name}.parity.json"), json.dumps({kind: entry}, indent=1).encode())
    return exported


def _write(run: RunDir, kind: Kind, path: Path, *, views: Views | None) -> None:
    if kind == "onnx":
        export_onnx(run, path, views=views)
    elif kind == "keras":
        export_keras(run, path)
    else:
        export_program(run, path, views=views)


def _answer(kind: Kind, path: Path) -> Answer:
    """The copy as a function of images, as its users will run it."""
    if kind == "keras":
        return load_keras(path)
    if kind == "torch":
        return load_program(path)
    session = open_session(path)
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _proven(
    run: RunDir,
    kind: Kind,
    copy: Path,
    *,
    path: Path,
    views: str,
    asked: Views | None,
    reporter: Reporter,
) -> Exported:
    """The copy, compared. Raises ExportError where it is not the same model."""
    shown = images_to_show(run, reporter=reporter)
    notes = [f"made-up images: {shown.why}"] if shown.why else []
    answer = _answer(kind, copy)
    answers = ask(answer, shown, task=f"asking the {kind} file", reporter=reporter)
    reference, parity = "torch", None
    if shown.known is not None and asked is None:
        parity, reference = compare(answers, shown.known, split=shown.split), "predictions/test.parquet"
    if parity is None or not parity.holds:
        if parity is not None:
            # Made on other hardware, or by another method: what counts is what the weights say here.
            notes.append(
                f"predictions/test.parquet differs by {parity.max_abs_diff:.1e} from what the weights say here"
            )
        expected = torch_probabilities(run, shown, views=asked, reporter=reporter)
        parity, reference = compare(answers, expected, split=shown.split), "torch"
    if not parity.holds:
        raise ExportError(
            f"--format {kind}: expected a copy that answers as torch to {parity.tolerance:g}, received one whose "
            f"probabilities differ by up to {parity.max_abs_diff:.2g}, with {parity.disagreements:,} other predictions "
            f"on {parity.images:,} {parity.split} images; nothing was kept"
        )
    if kind == "keras" and asked is not None:
        notes.append("one view: a Keras file of stock layers cannot hold the recipe's test-time views")
    return Exported(
        format=kind,
        path=path,
        bytes=copy.stat().st_size,
        views=views,
        parity=parity,
        reference=reference,
        latency_ms=latency(answer, shown),
        note="; ".join(notes),
    )


def _entry(exported: Exported, *, digest: str) -> dict[str, Any]:
    """What parity.json says of a copy."""
    return {
        "path": exported.path.name,
        "bytes": exported.bytes,
        "sha256": digest,
        "views": exported.views,
        **asdict(exported.parity),
        "reference": exported.reference,
        "latency_ms": exported.latency_ms,
        "threads": torch.get_num_threads(),
        "versions": _versions(exported.format),
        "hardware": hardware(),
        "note": exported.note,
    }


def _versions(kind: Kind) -> dict[str, str]:
    found = {}
    for package in ("lucidate", "torch", *ENGINES[kind]):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
