"""`lucidate analyze`, `gallery`, `report`: predictions answered in words, shown in pages, printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from lucidate.cli import console, stages
from lucidate.cli.console import RUN, Json, RunArgument, ShownImages, Size, Split
from lucidate.core.errors import LucidateError
from lucidate.core.progress import Reporter
from lucidate.core.run import RunDir, fresh_path

if TYPE_CHECKING:
    from lucidate.analysis.findings import Analysis

OptionalRun = Annotated[Path | None, Argument(metavar="RUN", help=RUN)]
PredictionsFile = Annotated[
    Path | None,
    Option(metavar="FILE", help="Anybody's predictions: Parquet or npz with labels and logits or probabilities."),
]
Images = Annotated[str | None, Option(metavar="SRC", help="The images that --predictions speaks of.")]
HistoryFile = Annotated[Path | None, Option(metavar="FILE", help="history.json as Keras writes it, for curves.")]
OptionalSplit = Annotated[
    str | None, Option(metavar="SPLIT", help="Which images. (default: test, or all where there is no test split)")
]
Findings = Annotated[
    Path | None, Option(metavar="DIR", help="Where findings go. (default: RUN/analysis; else only printed)")
]
Gallery = Annotated[Path | None, Option(metavar="DIR", help="Where the gallery goes. (default: RUN/gallery)")]
Pdf = Annotated[Path | None, Option(metavar="FILE", help="Where the PDF goes. (default: RUN/report.pdf)")]


def analyze(
    run: OptionalRun = None,
    predictions: PredictionsFile = None,
    images: Images = None,
    history: HistoryFile = None,
    split: OptionalSplit = None,
    image_size: Size = None,
    out: Findings = None,
    json: Json = False,
) -> None:
    """Answer the standing questions about a run, or about anybody's predictions, in words and JSON.

    Example: lucidate analyze runs/compact
    """
    with _analyzed(run, predictions, images, history, split, image_size, out) as (folder, analysis, _):
        findings = analysis.findings
        written = out or (folder.analysis(analysis.predictions.split) if folder else None)
        if written:
            findings.save(written)
    answers = {field.name: getattr(findings, field.name) for field in fields(findings)}
    headlines = {name: info.headline for name, info in answers.items() if info is not None}
    where = [str(written)] if written else []
    result = {"analysis": where[0] if where else None, "accuracy": findings.summary.accuracy, "headlines": headlines}
    console.emit(result, [*headlines.values(), *where], as_json=json)


def gallery(
    run: OptionalRun = None,
    predictions: PredictionsFile = None,
    images: Images = None,
    history: HistoryFile = None,
    split: OptionalSplit = None,
    image_size: Size = None,
    out: Gallery = None,
    json: Json = False,
) -> None:
    """Write the gallery of a run, or of anybody's predictions.

    Example: lucidate gallery --predictions mine.npz --images photos/ --out mine
    """
    with _analyzed(run, predictions, images, history, split, image_size, out) as (folder, analysis, reporter):
        from lucidate.report.site.gallery import gallery_of_analysis

        own = folder.gallery(analysis.predictions.split) if folder else fresh_path(Path("runs"), "gallery")
        index = gallery_of_analysis(analysis, folder=out or own, run=folder, reporter=reporter)
    result = {"gallery": str(index), "accuracy": analysis.predictions.accuracy}
    console.emit(result, str(index.resolve()), as_json=json)


@contextmanager
def _analyzed(
    run: Path | None,
    predictions: Path | None,
    images: str | None,
    history: Path | None,
    split: str | None,
    image_size: int | None,
    out: Path | None,
) -> Iterator[tuple[RunDir | None, Analysis, Reporter]]:
    """The analysis that the arguments name: of a run, which is locked meanwhile, or of anybody's predictions."""
    if out is not None:
        RunDir.free(out)  # a folder of the user's is never replaced; a run's own analysis or gallery is
    folder = stages.open_run(run) if run is not None else None
    with console.reporter() as reporter, folder.lock() if folder else nullcontext():
        from lucidate.analysis.findings import analyze_external, analyze_run

        if (folder is None) == (predictions is None):
            came = "neither" if folder is None else "both"
            raise LucidateError(f"expected a RUN, or --predictions FILE with --images SRC; received {came}")
        if folder is None:
            if images is None or predictions is None:
                raise LucidateError("--images: expected the images that the predictions speak of, received none")
            analysis = analyze_external(
                predictions, images, history=history, split=split, image_size=image_size, reporter=reporter
            )
        else:
            if images or history or image_size:
                raise LucidateError(
                    "--images, --history, --image-size: expected only with --predictions, received a RUN"
                )
            stages.predict_first(folder, split or "test", reporter)
            analysis = analyze_run(folder, split=split or "test", reporter=reporter)
        yield folder, analysis, reporter


def report(
    run: RunArgument, out: Pdf = None, split: Split = "test", images: ShownImages = True, json: Json = False
) -> None:
    """Write the report of a run: a PDF to read, print and send.

    Example: lucidate report runs/compact --out compact.pdf
    """
    if out is not None and (out.suffix.lower() != ".pdf" or out.is_dir()):
        raise LucidateError(f"--out: expected the name of a PDF file such as report.pdf, received {out}")
    folder = stages.open_run(run)
    with console.reporter() as reporter, folder.lock():
        stages.predict_first(folder, split, reporter)
        from lucidate.report.pdf.document import report_of_run

        path = report_of_run(folder, split=split, path=out, images=images, reporter=reporter)
    result = {"report": str(path), "run": str(run), "split": split, "bytes": path.stat().st_size}
    console.emit(result, str(path.resolve()), as_json=json)
