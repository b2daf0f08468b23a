"""`lucidate export`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import Json, RunArgument
from lucidate.core.errors import LucidateError
from lucidate.core.registry import choices

Form = Annotated[str, typer.Option("--format", metavar="FORMAT", help="onnx, keras or torch.")]
How = Annotated[
    str,
    typer.Option(metavar="VIEWS", help="recipe: the recipe's test-time views inside; one: without them, quicker."),
]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Where the file goes. (default: RUN/export/model.*)")]


def export(
    run: RunArgument,
    form: Form = "onnx",
    views: How = "recipe",
    out: Out = None,
    json: Json = False,
) -> None:
    """Write a model in a form that runs without lucidate, proven on every test image to answer as the original.

    onnx: pixels of any size in, everything else inside. keras: stock layers, of compact and fastnet, one view. torch: a
    torch.export program.

    Examples: lucidate export models/cifar10-fastnet --format onnx;
    lucidate export runs/compact --format keras --out compact.keras
    """
    if views not in ("recipe", "one"):
        raise LucidateError(f"--views: expected {choices(views, ['recipe', 'one'])}, received {views!r}")
    folder = stages.open_run(run)
    from lucidate.export.exporter import export_run

    with console.reporter() as reporter, nullcontext() if out else folder.lock():
        done = export_run(
            folder,
            form,
            views="one" if views == "one" else None,
            out=out,
            reporter=reporter,
        )
    parity = done.parity
    result = {
        "run": str(run),
        "format": done.format,
        "path": str(done.path),
        "bytes": done.bytes,
        "views": done.views,
        "max_abs_diff": parity.max_abs_diff,
        "disagreements": parity.disagreements,
        "ties": parity.ties,
        "images": parity.images,
        "split": parity.split,
        "tolerance": parity.tolerance,
        "reference": done.reference,
        "latency_ms": done.latency_ms,
        "note": done.note or None,
    }
    others = f"{parity.disagreements:,} other predictions" if parity.disagreements else "no other prediction"
    alone, many = done.latency_ms["1"], done.latency_ms["32"]
    lines = [
        f"{done.bytes / 1e6:.1f} MB, the same model: on {parity.images:,} {parity.split} images no probability differs "
        f"by more than {parity.max_abs_diff:.1e}, {others}",
        f"{alone:.2f} ms for one image, {many:.0f} ms for 32; views inside: {done.views}",
        *([done.note] if done.note else []),
        str(done.path),
    ]
    console.emit(result, "\n".join(lines), as_json=json)
