"""`lucidate analyze`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import HistoryFile, Images, Json, OptionalRun, OptionalSplit, PredictionsFile, Size
from lucidate.core.run import RunDir

Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where findings go. (default: RUN/analysis; else only printed)")
]


def analyze(
    run: OptionalRun = None,
    predictions: PredictionsFile = None,
    images: Images = None,
    history: HistoryFile = None,
    split: OptionalSplit = None,
    image_size: Size = None,
    out: Folder = None,
    json: Json = False,
) -> None:
    """Answer the standing questions about a run, or about anybody's predictions, in words and JSON.

    Example: lucidate analyze runs/compact
    """
    if out is not None:
        RunDir.free(out)
    if run is not None:
        run = stages.open_run(run).path
    with console.reporter() as reporter, RunDir(run).lock() if run else nullcontext():
        analysis = stages.find_analysis(
            run,
            predictions=predictions,
            images=images,
            history=history,
            split=split,
            image_size=image_size,
            reporter=reporter,
        )
        findings = analysis.findings
        folder = out or (RunDir(run).analysis(analysis.predictions.split) if run else None)
        if folder:
            findings.save(folder)
    answers = {field.name: getattr(findings, field.name) for field in fields(findings)}
    headlines = {name: info.headline for name, info in answers.items() if info is not None}
    result = {
        "analysis": str(folder) if folder else None,
        "accuracy": findings.summary.accuracy,
        "headlines": headlines,
    }
    console.emit(result, [*headlines.values(), *([str(folder)] if folder else [])], as_json=json)
