"""What several verbs have in common: a training prepared and run, a run opened, an analysis found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lucidate.cli.console import reporter, say_set_aside
from lucidate.cli.interrupt import stopping
from lucidate.core.errors import Interrupted, LucidateError
from lucidate.core.machine import processes
from lucidate.core.progress import Reporter
from lucidate.core.recipe import load_recipe
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir

if TYPE_CHECKING:
    import torch

    from lucidate.analysis.findings import Analysis
    from lucidate.training.job import TrainJob


def prepare_job(
    recipe: str,
    *,
    data: str | None,
    out: Path | None,
    overrides: list[str],
    device: str,
    reporter: Reporter,
    resume: bool = False,
) -> TrainJob:
    """What `training.job.prepare_run` makes of a command's arguments; says which files were set aside."""
    if resume and out is None:
        raise LucidateError("--resume: expected --out with the folder of the run to go on with, received none")
    ranks = processes()[1]
    if ranks > 1 and out is None:
        raise LucidateError("--out: expected a folder for all processes that train together, received none")
    load_recipe(recipe, source=data, overrides=overrides)  # a mistake in it is told before torch is loaded
    from lucidate.training.job import prepare_run

    program = f"torchrun --nproc-per-node {ranks} -m lucidate" if ranks > 1 else "lucidate"
    job = prepare_run(
        recipe,
        data=data,
        out=out,
        overrides=overrides,
        device=pick_device(device),
        command=" ".join([program, *sys.argv[1:]]),
        resume=resume,
        reporter=reporter,
    )
    say_set_aside([{"path": item.path, "reason": item.reason} for item in job.dataset.pack.set_aside], to=reporter)
    return job


def train(job: TrainJob, *, reporter: Reporter) -> RunCard:
    """Train into the folder, which must have been claimed; an interrupt saves first, and says how to go on."""
    from lucidate.training.job import train_job

    with stopping() as stop:
        try:
            card = train_job(job, reporter=reporter, stop=stop)
            if stop():  # asked for after the last step
                raise Interrupted("training: interrupted when it had just ended")
            return card
        except Interrupted as error:
            options = "" if "--out" in sys.argv else f" --out {job.run.path}"
            options += "" if "--resume" in sys.argv else " --resume"
            raise Interrupted(f"{error}; it is saved, go on with: {job.command}{options}") from None


def open_run(run: Path) -> RunDir:
    """The run that an argument means: a run's folder, or the file of a model from elsewhere."""
    if run.is_dir():
        return RunDir.open(run)
    from lucidate.external.import_model import open_run as adopted

    with reporter() as listener:
        return adopted(run, reporter=listener)


def predict_first(run: RunDir, split: str, reporter: Reporter) -> None:
    """As `predict.infer.predict_first`, which loads torch only where there is something to predict."""
    if not run.predictions(split).exists():
        from lucidate.predict.infer import predict_first as predict

        predict(run, split, device=pick_device("auto"), reporter=reporter)


def find_analysis(
    run: Path | None,
    *,
    predictions: Path | None,
    images: str | None,
    history: Path | None,
    split: str | None,
    image_size: int | None,
    reporter: Reporter,
) -> Analysis:
    """The analysis that the arguments of `analyze` and `gallery` name: of a run, or of anybody's predictions."""
    from lucidate.analysis.findings import analyze_external, analyze_run

    if (run is None) == (predictions is None):
        came = "neither" if run is None else "both"
        raise LucidateError(f"expected a RUN, or --predictions FILE with --images SRC; received {came}")
    if run is not None:
        if images or history or image_size:
            raise LucidateError("--images, --history, --image-size: expected only with --predictions, received a RUN")
        folder = RunDir.open(run)
        predict_first(folder, split or "test", reporter)
        return analyze_run(folder, split=split or "test", reporter=reporter)
    if images is None or predictions is None:
        raise LucidateError("--images: expected the images that the predictions speak of, received none")
    return analyze_external(predictions, images, history=history, split=split, image_size=image_size, reporter=reporter)


def pick_device(name: str) -> torch.device:
    """The device that `--device` names."""
    import torch

    from lucidate.models.build import default_device

    if name == "auto":
        return default_device()
    if name not in ("cpu", "cuda"):
        raise LucidateError(f"--device: expected auto, cpu or cuda, received {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise LucidateError("--device: expected a GPU for cuda, received a machine or a torch without one; use cpu")
    return torch.device(name)
