"""What several verbs have in common: a training prepared and run, a study that can be stopped, a run opened."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lucidate.cli import console
from lucidate.cli.process import stopping
from lucidate.core.errors import Interrupted, LucidateError
from lucidate.core.machine import processes
from lucidate.core.progress import Reporter
from lucidate.core.recipe import load_recipe
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir, fresh_path

if TYPE_CHECKING:
    import torch

    from lucidate.training.trainer import TrainJob

SET_ASIDE = 10  # files that are listed; `lucidate data info` lists all


def prepare_job(
    recipe: str,
    reporter: Reporter,
    *,
    data: str | None = None,
    name: str | None = None,
    out: Path | None = None,
    set_: list[str] | None = None,
    device: str = "auto",
    resume: bool = False,
) -> TrainJob:
    """What `training.job.prepare_run` makes of a command's arguments; says which files were set aside."""
    if resume and out is None:
        raise LucidateError("--resume: expected --out with the folder of the run to go on with, received none")
    if processes()[1] > 1 and out is None:
        raise LucidateError("--out: expected a folder for all processes that train together, received none")
    overrides = [*(set_ or []), *([f"data.name={json.dumps(name, ensure_ascii=False)}"] if name else [])]
    load_recipe(recipe, source=data, overrides=overrides)  # a mistake in it is told before torch is loaded
    from lucidate.training.job import prepare_run

    job = prepare_run(
        recipe,
        data=data,
        out=out,
        overrides=overrides,
        device=pick_device(device),
        command=command_line(),
        resume=resume,
        reporter=reporter,
    )
    if aside := job.dataset.pack.set_aside:
        reporter.say(f"{len(aside)} files set aside:" if len(aside) > 1 else "1 file set aside:")
        for item in aside[:SET_ASIDE]:
            reporter.say(f"  {item.path}: {item.reason}")
        if len(aside) > SET_ASIDE:
            reporter.say(f"  … and {len(aside) - SET_ASIDE} more (lucidate data info lists all)")
    return job


def command_line() -> str:
    """What was typed, for the run card."""
    ranks = processes()[1]
    return " ".join([f"torchrun --nproc-per-node {ranks} -m lucidate" if ranks > 1 else "lucidate", *sys.argv[1:]])


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


@contextmanager
def study(name: str, out: Path | None) -> Iterator[tuple[Path, Reporter, Callable[[], bool]]]:
    """For work of many steps: (its folder, reporter, whether to stop); an interrupt says how to go on."""
    folder = out or fresh_path(Path("runs"), name)
    with console.reporter() as reporter, stopping() as stop:
        try:
            yield folder, reporter, stop
        except Interrupted as error:
            again = "the same command" if out else f"the same command and --out {folder}"
            raise Interrupted(f"{error}; it is saved, go on with {again}") from None


def open_run(run: Path) -> RunDir:
    """The run that an argument means: a run's folder, or the file of a model from elsewhere."""
    if run.is_dir():
        return RunDir.open(run)
    from lucidate.external.import_model import open_run as adopted

    with console.reporter() as reporter:
        return adopted(run, reporter=reporter)


def predict_first(run: RunDir, split: str, reporter: Reporter) -> None:
    """As `predict.infer.predict_first`, which loads torch only where there is something to predict."""
    if not run.predictions(split).exists():
        from lucidate.predict.infer import predict_first as predict

        predict(run, split, device=pick_device("auto"), reporter=reporter)


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
