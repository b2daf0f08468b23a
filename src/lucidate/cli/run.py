"""`lucidate run`: the whole main road."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lucidate.cli import console, stages
from lucidate.cli.options import Data, Device, Json, Name, Out, RecipeArgument, Resume, Set, settings
from lucidate.core.machine import processes
from lucidate.core.progress import Reporter

if TYPE_CHECKING:
    from lucidate.training.job import TrainJob


def run(
    recipe: RecipeArgument,
    data: Data = None,
    name: Name = None,
    out: Out = None,
    set_: Set = None,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train, predict, analyze, and write the gallery and the report.

    Example: lucidate run compact --data cifar10 --set train.epochs=5 --out runs/first
    """
    start = time.perf_counter()
    with console.reporter() as reporter:
        job = stages.prepare_job(
            recipe,
            data=data,
            out=out,
            overrides=settings(set_, name=name),
            device=device,
            reporter=reporter,
            resume=resume,
        )
        result = main_road(job, reporter=reporter, since=start, resume=resume)
    if not result:
        return
    text = (
        f"validation accuracy {result['val_accuracy']:.4f}, test accuracy {result['test_accuracy']:.4f}, "
        f"{result['seconds']:.0f} s\nrun      {result['run']}\ngallery  {Path(result['gallery']).resolve()}\n"
        f"report   {Path(result['report']).resolve()}"
    )
    console.emit(result, text, as_json=json)


def main_road(job: TrainJob, *, reporter: Reporter, since: float, resume: bool = False) -> dict[str, Any]:
    """Every stage in turn; the object that `--json` prints, empty in processes that only train along.

    since: what `time.perf_counter` gave when the command began.
    """
    with job.claim(resume=resume):
        stages.train(job, reporter=reporter)
        if processes()[0]:
            return {}  # the first of the processes that train together goes on
        from lucidate.api import write_up

        card, index, report = write_up(job, reporter=reporter, since=since)
    return {
        "run": str(job.run.path),
        "val_accuracy": card.results.val_accuracy,
        "test_accuracy": card.results.test_accuracy,
        "gallery": str(index),
        "report": str(report),
        "seconds": round(time.perf_counter() - since, 2),
    }
