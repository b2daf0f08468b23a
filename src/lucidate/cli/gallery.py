"""`lucidate gallery`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucidate.cli import console
from lucidate.cli.options import Json
from lucidate.core.errors import LucidateError
from lucidate.core.progress import Reporter
from lucidate.core.rundir import RunDir, fresh_path

if TYPE_CHECKING:
    from lucidate.analyze.of_run import Analysis

OptionalRun = Annotated[Path | None, typer.Argument(metavar="RUN", help="A run folder.")]
PredictionsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Anybody's predictions: Parquet or npz with labels and logits or probabilities."),
]
Images = Annotated[str | None, typer.Option(metavar="SRC", help="The images that --predictions speaks of.")]
HistoryFile = Annotated[Path | None, typer.Option(metavar="FILE", help="history.json as Keras writes it, for curves.")]
SplitOrNone = Annotated[
    str | None, typer.Option(metavar="SPLIT", help="Which images. (default: test, or all where there is no test split)")
]
Size = Annotated[int | None, typer.Option(metavar="PIXELS", help="Side at which --images are packed.")]
Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the gallery goes. (default: RUN/gallery)")]


def gallery(
    run: OptionalRun = None,
    predictions: PredictionsFile = None,
    images: Images = None,
    history: HistoryFile = None,
    split: SplitOrNone = None,
    image_size: Size = None,
    out: Folder = None,
    json: Json = False,
) -> None:
    """Write the gallery of a run, or of anybody's predictions.

    Example: lucidate gallery --predictions mine.npz --images photos/ --out mine
    """
    from lucidate.report.gallery.of_run import describe_external, describe_run
    from lucidate.report.gallery.site import build_gallery

    with console.reporter() as reporter:
        if run and not out:
            out = RunDir(run).gallery
        folder = RunDir.free(out).path if out and not run else out or fresh_path(Path("runs"), "gallery")
        analysis = load_analysis(run, predictions, images, history, split, image_size, reporter)
        about = describe_run(RunDir(run), analysis) if run else describe_external(analysis)
        index = build_gallery(
            folder, analysis.predictions, analysis.findings, analysis.pack.images, about=about, reporter=reporter
        )
    accuracy = analysis.predictions.accuracy
    console.emit({"gallery": str(index), "accuracy": accuracy}, str(index), as_json=json)


def load_analysis(
    run: Path | None,
    predictions: Path | None,
    images: str | None,
    history: Path | None,
    split: str | None,
    image_size: int | None,
    reporter: Reporter,
) -> Analysis:
    """The analysis that the arguments of `analyze` and `gallery` name."""
    from lucidate.analyze.of_run import analyze_external, analyze_run

    if (run is None) == (predictions is None):
        came = "neither" if run is None else "both"
        raise LucidateError(f"expected a RUN, or --predictions FILE with --images SRC; received {came}")
    if run is not None:
        if images or history or image_size:
            raise LucidateError(
                "--images, --history and --image-size: expected only with --predictions, received a RUN"
            )
        return analyze_run(RunDir.open(run), split=split or "test", reporter=reporter)
    if images is None or predictions is None:
        raise LucidateError("--images: expected the images that the predictions speak of, received none")
    return analyze_external(predictions, images, history=history, split=split, image_size=image_size, reporter=reporter)
