"""`lucidate run`, the whole main road; `train`, its beginning; `demo`, the road on the embedded data set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from lucidate.cli import console, stages
from lucidate.cli.console import Device, Json, Out, Set
from lucidate.core.machine import processes
from lucidate.core.progress import Reporter
from lucidate.core.run import fresh_path

if TYPE_CHECKING:
    from lucidate.training.trainer import TrainJob

RecipeArgument = Annotated[str, Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.")]
Data = Annotated[
    str | None, Option(metavar="SRC", help="digits, cifar10, or a path to images; overrides the recipe's data.source.")
]
Name = Annotated[
    str | None,
    Option("--name", metavar="NAME", help="What the images are called in pages and files. (default: the source's)"),
]
Resume = Annotated[
    bool,
    Option(
        "--resume",
        help="Go on with the training in --out from its last checkpoint, to the same bits unless minutes end it.",
    ),
]


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
            recipe, reporter, data=data, name=name, out=out, set_=set_, device=device, resume=resume
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


def train(
    recipe: RecipeArgument,
    data: Data = None,
    name: Name = None,
    out: Out = None,
    set_: Set = None,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a model into a run folder. The test split stays sealed.

    Example: lucidate train compact --data cifar10 --out runs/compact
    """
    with console.reporter() as reporter:
        job = stages.prepare_job(
            recipe, reporter, data=data, name=name, out=out, set_=set_, device=device, resume=resume
        )
        with job.claim(resume=resume):
            results = stages.train(job, reporter=reporter).results
    text = f"validation accuracy {results.val_accuracy:.4f} after {results.epochs} epochs\n{job.run.path}"
    console.emit({"run": str(job.run.path), **results.model_dump()}, text, as_json=json)


def demo(out: Out = None, json: Json = False) -> None:
    """Train on scikit-learn's embedded digits, offline, and say where the gallery is.

    Example: lucidate demo
    """
    out = out or fresh_path(Path("runs"), "demo")
    start = time.perf_counter()
    with console.reporter() as reporter:
        job = stages.prepare_job("digits", reporter, out=out, device="cpu")
        result = main_road(job, reporter=reporter, since=start)
    text = (
        f"Test accuracy {100 * result['test_accuracy']:.1f} % after {result['seconds']:.0f} s, all stages together.\n"
        f"Open the gallery in a browser:\n  {Path(result['gallery']).resolve()}"
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
