"""`lucidate analyze`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from lucidate.cli import console
from lucidate.cli.gallery import HistoryFile, Images, OptionalRun, PredictionsFile, Size, SplitOrNone, load_analysis
from lucidate.cli.options import Json

Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where findings of --predictions go.")]


def analyze(
    run: OptionalRun = None,
    predictions: PredictionsFile = None,
    images: Images = None,
    history: HistoryFile = None,
    split: SplitOrNone = None,
    image_size: Size = None,
    out: Folder = None,
    json: Json = False,
) -> None:
    """Answer the standing questions about a run, or about anybody's predictions, in words and JSON.

    Example: lucidate analyze runs/compact
    """
    with console.reporter() as reporter:
        analysis = load_analysis(run, predictions, images, history, split, image_size, reporter)
    findings = analysis.findings
    if out:
        findings.save(out)
    answers = {field.name: getattr(findings, field.name) for field in fields(findings)}
    headlines = {name: info.headline for name, info in answers.items() if info is not None}
    folder = out or (run / "analysis" if run else None)
    result = {
        "analysis": str(folder) if folder else None,
        "accuracy": findings.summary.accuracy,
        "headlines": headlines,
    }
    text = "\n".join([*headlines.values(), *([str(folder)] if folder else [])])
    console.emit(result, text, as_json=json)
