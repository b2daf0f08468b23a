"""`lucidate gallery`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import HistoryFile, Images, Json, OptionalRun, OptionalSplit, PredictionsFile, Size
from lucidate.core.run import RunDir, fresh_path

Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the gallery goes. (default: RUN/gallery)")]


def gallery(
    run: OptionalRun = None,
    predictions: PredictionsFile = None,
    images: Images = None,
    history: HistoryFile = None,
    split: OptionalSplit = None,
    image_size: Size = None,
    out: Folder = None,
    json: Json = False,
) -> None:
    """Write the gallery of a run, or of anybody's predictions.

    Example: lucidate gallery --predictions mine.npz --images photos/ --out mine
    """
    if out is not None:
        RunDir.free(out)  # a folder of the user's is never replaced; a run's own gallery is
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
        from lucidate.report.site.gallery import gallery_of_analysis

        if run:
            folder = out or RunDir(run).gallery(analysis.predictions.split)
        else:
            folder = out or fresh_path(Path("runs"), "gallery")
        index = gallery_of_analysis(analysis, folder=folder, run=RunDir(run) if run else None, reporter=reporter)
    result = {"gallery": str(index), "accuracy": analysis.predictions.accuracy}
    console.emit(result, str(index.resolve()), as_json=json)
