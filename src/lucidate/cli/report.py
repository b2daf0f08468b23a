"""`lucidate report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import Json, RunArgument, Split
from lucidate.core.errors import LucidateError

File = Annotated[Path | None, typer.Option(metavar="FILE", help="Where the PDF goes. (default: RUN/report.pdf)")]


def report(run: RunArgument, out: File = None, split: Split = "test", json: Json = False) -> None:
    """Write the report of a run: a PDF to read, print and send.

    Example: lucidate report runs/compact --out compact.pdf
    """
    if out is not None and (out.suffix.lower() != ".pdf" or out.is_dir()):
        raise LucidateError(f"--out: expected the name of a PDF file such as report.pdf, received {out}")
    folder = stages.open_run(run)
    with console.reporter() as reporter, folder.lock():
        stages.predict_first(folder, split, reporter)
        from lucidate.report.pdf.document import report_of_run

        path = report_of_run(folder, split=split, path=out, reporter=reporter)
    result = {"report": str(path), "run": str(run), "split": split, "bytes": path.stat().st_size}
    console.emit(result, str(path.resolve()), as_json=json)
