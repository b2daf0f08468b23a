"""A recipe and its images → a run folder with weights, history and run card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import nn

from lucidate.core import machine
from lucidate.core.errors import RunError
from lucidate.core.machine import processes
from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import Recipe
from lucidate.core.records import DataCard, ModelCard, RunCard, SplitCard, jsonable
from lucidate.core.run import RunDir
from lucidate.data.batches import Batches, Dataset, derived_seed
from lucidate.data.packed import read_rows
from lucidate.data.sources.find import location
from lucidate.models.build import begins_with_weights, build, parameter_count, preprocess_for, to_device, value_count
from lucidate.models.checkpoint import save_weights
from lucidate.models.predictor import batch_size
from lucidate.models.registry import Preparable
from lucidate.training.checkpoint import Checkpoints
from lucidate.training.distributed import ProcessGroup, join_processes
from lucidate.training.evaluation import train_head
from lucidate.training.loop import Training, train_model
from lucidate.training.precision import choose_precision
from lucidate.training.teacher import load_teacher, note_on, require_teacher

INPUT_SAMPLE = 5_000  # images of 32 pixels: their patches give the statistics to three digits
INITIAL = 2  # keeps the seed of the initial weights apart from those of steps


@dataclass(frozen=True)
class TrainJob:
    """Everything that can be refused has been looked at, and no folder has been made yet.

    command: how to start it again, for the run card. teacher: a run whose answers on the training images count as
    well, by `recipe.distill`, which must hold its checksum.
    """

    recipe: Recipe
    run: RunDir
    dataset: Dataset
    device: torch.device
    command: str = ""
    teacher: RunDir | None = None

    def claim(self, *, resume: bool) -> AbstractContextManager[None]:
        """The run's folder, for one writer: of processes that train together, the first."""
        return nullcontext() if processes()[0] else self.run.claim(resume=resume)


def fit(job: TrainJob, *, reporter: Reporter | None = None, stop: Callable[[], bool] = lambda: False) -> RunCard:
    """Train by the recipe into a folder that the caller has claimed, and return the run card.

    Where the folder holds an unfinished training of the same recipe, images and thread count, it goes on from its
    newest checkpoint, to the same bits if no minutes end it; where it holds a finished one, nothing is done. The run
    card stands from the start, with status "training". Started by torchrun, each process calls this, and all train one
    model together.

    stop: asked after each step; True saves a checkpoint and raises Interrupted. Raises RunError when the loss
    diverges or the folder holds another training; RecipeError for the model's options.
    """
    recipe, run, dataset, teacher = job.recipe, job.run, job.dataset, job.teacher
    require_teacher(recipe.distill, teacher)
    with memory_errors(recipe), join_processes(job.device) as group:
        device = group.device
        reporter = reporter if reporter and group.is_main else Silent()
        checkpoints = Checkpoints(run.checkpoints, reporter=reporter)
        # A resumed training has its weights in the checkpoint: none are fetched for it.
        fresh = not checkpoints.all() and not run.weights.exists()
        pack, classes = dataset.pack, dataset.pack.class_names
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(recipe.seed, INITIAL))
            model = build(recipe.model, len(classes), image_size=pack.image_size, initial=fresh)
        to_device(model, device)
        dataset = replace(dataset, preprocess=preprocess_for(recipe.model, dataset.preprocess))
        batches = dataset.batches("train", batch_size=recipe.train.batch_size, device=device)
        require_divisible(recipe, batches, group)
        card = make_card(replace(job, dataset=dataset), model, group)
        if group.is_main:
            card = started_card(card, model, run=run, group=group, reporter=reporter)
        card = RunCard.model_validate_json(group.broadcast(card.model_dump_json().encode()), strict=False)
        if card.status != "training":
            return card
        if group.is_main:
            card.save(run.card)
            dataset.splits.save(run.splits, pack.ids)
        prepare(model, dataset, device=device)
        many = batch_size(model, pack.image_size, device)
        if fresh and recipe.train.probe_steps and begins_with_weights(recipe.model):
            whole = dataset.batches("train", batch_size=many, device=device)
            train_head(model, whole, steps=recipe.train.probe_steps, precision=card.precision, reporter=reporter)
        training = Training(
            batches=batches,
            validation=dataset.batches("validation", batch_size=many, device=device),
            recipe=recipe,
            flips=pack.flips,
            reporter=reporter,
            checkpoints=checkpoints,
            stop=stop,
            precision=card.precision,
            group=group,
        )
        if recipe.train.balance == "weights":
            weights = torch.from_numpy(batches.class_weights(len(classes))).float().to(device)
            training = replace(training, class_weights=weights)
        if teacher:
            taught_by = load_teacher(
                teacher, classes=classes, seen=dataset.preprocess, device=device, precision=card.precision
            )
            training = replace(training, teacher=taught_by)
        history = train_model(model, training)
        card = card.with_results(
            val_accuracy=max(history.val_accuracy) if recipe.train.restore_best else history.val_accuracy[-1],
            epochs=history.epochs,
            train_seconds=round(sum(history.epoch_seconds), 2),
        )
        card = card.model_copy(update={"status": "trained"})
        if group.is_main:
            history.save(run.history)
            save_weights(model.float(), run.weights)
            card.save(run.card)
            checkpoints.remove()
    return card


@contextmanager
def memory_errors(recipe: Recipe) -> Iterator[None]:
    """Turn an accelerator's lack of memory into one line. Raises RunError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise RunError(
            f"training: expected the accelerator's memory to hold batches of {recipe.train.batch_size}, but it is too "
            "small; lower train.batch_size, or share batches among more devices with torchrun"
        ) from None


def started_card(card: RunCard, model: nn.Module, *, run: RunDir, group: ProcessGroup, reporter: Reporter) -> RunCard:
    """The card of the training that the folder holds, where it is the same one; else the new one, with a precision.

    Raises RunError where the folder holds another training.
    """
    if run.card.exists():
        return require_same(RunCard.load(run.card), card)
    for note in card.notes:
        reporter.say(note)
    precision = choose_precision(
        card.recipe,
        model,
        image_size=card.data.image_size,
        device=group.device,
        reporter=reporter,
        processes=group.size,
    )
    return card.model_copy(update={"precision": precision})


def require_divisible(recipe: Recipe, train: Batches, group: ProcessGroup) -> None:
    """Refuse batches of which a process would get less than the two images that BatchNorm needs. Raises RunError."""
    divided = replace(train, ranks=group.size)
    whole = len(train.rows)
    for images in {whole, round(recipe.train.hard_share * whole) if recipe.train.hard_epochs else whole}:
        if recipe.train.batch_size < 2 * group.size or divided.training_steps(images) != train.training_steps(images):
            raise RunError(
                f"torchrun: expected at least two images of each batch for each of {group.size} processes, received "
                f"batches of {recipe.train.batch_size} and a last one of {images % recipe.train.batch_size}; start "
                "fewer, or set train.batch_size"
            )
        if not train.training_steps(images):
            raise RunError(f"training: expected at least two images an epoch, received {images}")


def prepare(model: nn.Module, dataset: Dataset, *, device: torch.device) -> None:
    """Let a model that asks for it look at training images before it is trained."""
    if isinstance(model, Preparable):
        rows = dataset.splits.train
        count = max(INPUT_SAMPLE * 32**2 // dataset.pack.image_size**2, 64)  # as many patches from larger images
        sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(np.int64)]
        pixels = torch.from_numpy(read_rows(dataset.pack.images, sample)).to(device)
        model.prepare(dataset.preprocess.normalize(pixels))


def make_card(job: TrainJob, model: nn.Module, group: ProcessGroup) -> RunCard:
    """The run card of a training that is about to start."""
    recipe, pack, splits, device = job.recipe, job.dataset.pack, job.dataset.splits, group.device
    notes = (note_on(job.teacher, recipe.distill),) if job.teacher else ()
    return RunCard(
        name=job.run.path.resolve().name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=recipe.seed,
        recipe=recipe,
        data=DataCard(
            source=pack.source,
            path=location(pack.source),
            dataset=pack.dataset,
            pack=pack.hash,
            images=len(pack),
            image_size=pack.image_size,
            flips=pack.flips,
            set_aside=jsonable(pack.set_aside),
        ),
        classes=pack.class_names,
        split=SplitCard(scheme=splits.scheme, requested=recipe.data.split, sizes=splits.sizes),
        preprocess=job.dataset.preprocess.as_dict(),
        model=ModelCard(
            name=recipe.model.name,
            options=recipe.model.options,
            parameters=parameter_count(model),
            values=value_count(model),
            weights=getattr(model, "origin", None),
        ),
        versions=machine.versions(),
        hardware=machine.hardware(accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None),
        threads=torch.get_num_threads(),
        processes=group.size,
        notes=(*getattr(model, "notes", ()), *notes),
        commit=machine.commit(),
        command=job.command,
    )


def require_same(old: RunCard, new: RunCard) -> RunCard:
    """The old run card, if going on from it can end in the same bits. Raises RunError naming what differs."""
    theirs, ours = old.recipe.model_dump(), new.recipe.model_dump()
    # Where the images lie may differ, for instance after a move; their hash is compared below.
    for values in (theirs, ours):
        del values["data"]["source"]
    start, order = "the run was started with", "which would round sums in another order"
    checks: list[tuple[Any, Any, str]] = [
        *(
            (
                theirs[section],
                value,
                f"the recipe that {start}, {section} = {theirs[section]}, received {value}; restore it, or choose "
                "another --out",
            )
            for section, value in ours.items()
        ),
        (
            old.data.pack,
            new.data.pack,
            f"the images that {start} (checksum {old.data.pack[:12]}), received others ({new.data.pack[:12]}); "
            "restore them, or choose another --out",
        ),
        (
            old.threads,
            new.threads,
            f"{old.threads} threads, as {start}, received {new.threads}, {order}; set OMP_NUM_THREADS={old.threads}",
        ),
        *(
            (
                was,
                now,
                f"{what} {was or 'none'}, as {start}, received {now or 'none'}, which would round otherwise; go on "
                "there, or choose another --out",
            )
            for what, was, now in (
                ("accelerator", old.hardware.get("accelerator"), new.hardware.get("accelerator")),
                ("torch", old.versions.get("torch"), new.versions.get("torch")),
            )
        ),
        (
            old.processes,
            new.processes,
            f"{old.processes} processes, as {start}, received {new.processes}, {order}; start torchrun with as many",
        ),
    ]
    for was, now, sentence in checks:
        if was != now:
            raise RunError(f"--resume: expected {sentence}")
    return old
