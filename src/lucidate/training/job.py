"""The life of a run: prepared, trained, predicted, finished. Commands, studies and Python callers all come this way.

A run card's status is "training" from the start of a training, "trained" once its weights stand, and "finished" once
its test split has been predicted. The first two are set by `training.trainer`, the last one here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lucidate.core.machine import processes
from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import Recipe, find_recipe, load_recipe, overridden, with_overrides
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir, fresh_path
from lucidate.data.batches import Dataset, prepare
from lucidate.models.build import check, default_device, require_weights
from lucidate.predict.infer import known_accuracy, predict_run
from lucidate.training import auto
from lucidate.training.precision import chosen_before, with_budget
from lucidate.training.trainer import TrainJob, fit


def open_images(recipe: Recipe, *, fetch: bool = True, reporter: Reporter) -> Dataset:
    """Pack and divide a recipe's images, and see that its model suits them; fetch: and that its weights can be had."""
    check(recipe.model, start_size=recipe.train.start_size)  # before the images are packed, which may take minutes
    if fetch:
        require_weights(recipe.model)
    dataset = prepare(recipe, reporter=reporter)
    check(recipe.model, image_size=dataset.pack.image_size)
    return dataset


def prepare_run(
    recipe: str | Path | Recipe,
    *,
    data: str | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: torch.device | None = None,
    command: str = "",
    resume: bool = False,
    reporter: Reporter | None = None,
) -> TrainJob:
    """A recipe (its name, file or record) and its images, packed and divided; folder, model and weights suit them.

    Makes no folder. resume: it may hold a run, which brings its own weights.
    Raises RunError for a folder that is taken, RecipeError, SourceError, WeightsError.
    """
    reporter = reporter or Silent()
    if isinstance(recipe, Recipe):
        resolved, name = with_overrides(recipe, source=data, overrides=overrides), recipe.model.name
    else:
        name = find_recipe(recipe).stem
        if auto.is_auto(recipe):
            resolved = auto.resolve(data, overrides=overrides, reporter=reporter)
        else:
            resolved = load_recipe(recipe, source=data, overrides=overrides)
    run = RunDir(Path(out) if out else fresh_path(Path("runs"), name))
    begun = resume and run.card.exists()
    if not processes()[0] and not begun:
        RunDir.free(run.path)
    dataset, device = open_images(resolved, fetch=not begun, reporter=reporter), device or default_device()
    asked = overridden(overrides)
    if not begun:
        resolved = with_budget(resolved, dataset, asked=asked, device=device, reporter=reporter)
    elif resolved.train.sizes:
        resolved = chosen_before(resolved, RunCard.load(run.card).recipe, asked=asked)
    return TrainJob(resolved, run, dataset, device, command)


def train_job(job: TrainJob, *, reporter: Reporter, stop: Callable[[], bool] = lambda: False) -> RunCard:
    """Train into the folder, which must have been claimed, and predict validation; the test split stays sealed.

    stop: asked after each step; True saves a checkpoint and raises Interrupted.
    """
    pack, sizes = job.dataset.pack, job.dataset.splits.sizes
    counts = ", ".join(f"{count:,} {name}" for name, count in sizes.items())
    reporter.say(f"{pack.dataset}: {len(pack.class_names)} classes, {counts}; training in {job.run.path}")
    card = fit(job, reporter=reporter, stop=stop)
    if processes()[0]:
        return card  # of processes that train together, the first goes on
    predict_missing(job, "validation", reporter=reporter)
    return RunCard.load(job.run.card)


def finish_job(job: TrainJob, *, reporter: Reporter, since: float | None = None) -> RunCard:
    """Open the test split, once, and set the status "finished".

    since: what `time.perf_counter` gave at the start, for the seconds that the run card keeps; of a run that was
    stopped in between, at least those of all its epochs.
    """
    predict_missing(job, "test", reporter=reporter)
    card = RunCard.load(job.run.card)
    if card.status != "finished":
        trained = card.results.train_seconds or 0.0
        seconds = {} if since is None else {"seconds": round(max(time.perf_counter() - since, trained), 2)}
        card = card.with_results(**seconds).model_copy(update={"status": "finished"})
        card.save(job.run.card)
    return card


def complete(
    job: TrainJob, *, reporter: Reporter, stop: Callable[[], bool] = lambda: False, since: float | None = None
) -> RunDir:
    """Whatever is missing of a run: it goes on where it was stopped, and a finished one stands as it is.

    since: as for `finish_job`.
    """
    begun = job.run.card.exists()
    if begun and RunCard.load(job.run.card).status == "finished":
        reporter.say(f"{job.run.path.name}: finished before")
        return job.run
    with job.claim(resume=begun):
        train_job(job, reporter=reporter, stop=stop)
        finish_job(job, reporter=reporter, since=since)
    return job.run


def predict_missing(job: TrainJob, split: str, *, reporter: Reporter) -> None:
    """Predict a split unless its table and what the run card says of it are there.

    The card is written last: a table without it was interrupted before its figures were kept.
    """
    card = RunCard.load(job.run.card)
    one_view = {"validation": card.results.val_accuracy_one_view, "test": card.results.test_accuracy_one_view}
    judged = known_accuracy(card, split) is not None
    judged = judged and (job.recipe.predict.views == "one" or one_view[split] is not None)
    if not judged or not job.run.predictions(split).exists():
        predict_run(job.run, split, pack=job.dataset.pack, device=job.device, reporter=reporter)
