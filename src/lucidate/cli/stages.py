"""What several verbs have in common: a recipe made ready and trained, an analysis found."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lucidate.cli.console import reporter, say_set_aside
from lucidate.cli.interrupt import stopping
from lucidate.core.errors import Interrupted, LucidateError
from lucidate.core.machine import processes
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe, find_recipe, load_recipe
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir, fresh_path

if TYPE_CHECKING:
    import torch

    from lucidate.analysis.findings import Analysis
    from lucidate.data.dataset import Dataset


@dataclass(frozen=True)
class TrainJob:
    """Everything that can be refused has been looked at, and no folder has been made yet."""

    recipe: Recipe
    run: RunDir
    dataset: Dataset
    device: torch.device


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
    """Resolve the recipe, choose the folder, pack and divide the images, and see that the model suits them."""
    resolved = load_recipe(recipe, source=data, overrides=overrides)
    if resume and out is None:
        raise LucidateError("--resume: expected --out with the folder of the run to go on with, received none")
    rank, ranks = processes()
    if ranks > 1 and out is None:
        raise LucidateError("--out: expected a folder for all processes that train together, received none")
    run = RunDir(out or fresh_path(Path("runs"), find_recipe(recipe).stem))
    if not rank and not (resume and run.card.exists()):
        RunDir.free(run.path)
    from lucidate.data.dataset import prepare
    from lucidate.models.build import check, require_weights

    chosen = pick_device(device)
    check(resolved.model)  # before the images are packed, which may take minutes
    if not (resume and run.card.exists()):
        require_weights(resolved.model)
    dataset = prepare(resolved, reporter=reporter)
    check(resolved.model, image_size=dataset.pack.image_size)
    say_set_aside([{"path": item.path, "reason": item.reason} for item in dataset.pack.set_aside], to=reporter)
    return TrainJob(resolved, run, dataset, chosen)


def claim(ready: TrainJob, *, resume: bool) -> AbstractContextManager[None]:
    """The run's folder, for one writer: of processes that train together, the first."""
    return nullcontext() if processes()[0] else ready.run.claim(resume=resume)


def train(ready: TrainJob, *, reporter: Reporter) -> RunCard:
    """Train into the folder, which must have been claimed."""
    from lucidate.training.trainer import fit

    pack, splits = ready.dataset.pack, ready.dataset.splits
    sizes = ", ".join(f"{count:,} {name}" for name, count in splits.sizes.items())
    reporter.say(f"{pack.dataset}: {len(pack.class_names)} classes, {sizes}; training in {ready.run.path}")
    ranks = processes()[1]
    program = f"torchrun --nproc-per-node {ranks} -m lucidate" if ranks > 1 else "lucidate"
    command = " ".join([program, *sys.argv[1:]])
    with stopping() as stop:
        try:
            card = fit(
                ready.recipe,
                ready.dataset,
                run=ready.run,
                device=ready.device,
                command=command,
                reporter=reporter,
                stop=stop,
            )
            if stop():  # asked for after the last step
                raise Interrupted("training: interrupted when it had just ended")
            return card
        except Interrupted as error:
            options = "" if "--out" in sys.argv else f" --out {ready.run.path}"
            options += "" if "--resume" in sys.argv else " --resume"
            raise Interrupted(f"{error}; it is saved, go on with: {command}{options}") from None


def open_run(run: Path) -> RunDir:
    """The run that an argument means: a run's folder, or the file of a model from elsewhere."""
    if run.is_dir():
        return RunDir.open(run)
    from lucidate.external.import_model import open_run as adopted

    with reporter() as told:
        return adopted(run, reporter=told)


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
