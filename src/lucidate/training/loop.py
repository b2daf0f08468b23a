"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import Interrupted, RunError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe, TrainRecipe
from lucidate.core.records import History
from lucidate.data.batches import Batch, Batches, derived_seed, part_of
from lucidate.models.build import begins_with_weights
from lucidate.models.registry import Preparable
from lucidate.training.checkpoint import Checkpoints, State
from lucidate.training.depthwise import quick_gradients
from lucidate.training.distributed import ProcessGroup, sync_layers
from lucidate.training.evaluation import evaluate
from lucidate.training.optim import classification_loss, let_learn, make_optimizer, set_learning_rate
from lucidate.training.precision import casting, deterministic, working_type
from lucidate.training.schedule import (
    budget_line,
    ended,
    epoch_line,
    epoch_name,
    epochs_since_best,
    growing,
    learning_rate,
    stopped_early,
)
from lucidate.training.teacher import Teacher, distillation_loss

DROPOUT = 1  # keeps the seed of a step's dropout apart from that of its augmentation
AGREE_STEPS = 10  # between questions to all processes whether one was asked to stop
DIVERGED = 1e4  # nats: no training that learns is ever near; NaN is not below it either
PLAN_STEPS = 20  # after which a budget's epochs are foretold
FINITE_STEPS = 50  # between looks at whether the loss is still finite: each look makes a GPU wait


@dataclass(frozen=True, eq=False, kw_only=True)
class Training:
    """What a training needs besides the model.

    batches, validation: as one process would see them; the loop takes this process's part. flips: whether the source
    allows mirroring. stop: asked after each step and epoch; True saves a checkpoint and raises Interrupted. precision:
    of convolutions and products, "float32" or "bfloat16"; or "float64", of everything, also of the weights that the
    model ends with. group: the processes that share each batch. teacher: whose logits count as well, by
    `recipe.distill`; the history's loss is then that sum's, while validation is judged by the labels alone.
    class_weights: (K,), what images of each class weigh in the loss.
    """

    batches: Batches
    validation: Batches
    recipe: Recipe
    flips: bool
    reporter: Reporter
    checkpoints: Checkpoints | None = None
    stop: Callable[[], bool] = lambda: False
    precision: str = "float32"
    group: ProcessGroup = field(default_factory=lambda: ProcessGroup(torch.device("cpu")))
    teacher: Teacher | None = None
    class_weights: Tensor | None = None


def train_model(model: nn.Module, training: Training) -> History:
    """Train `model` in place by the recipe and return its history.

    Everything random is a function of (seed, epoch, step), so a training that goes on from a checkpoint ends with
    the same bits as one that was never interrupted, unless `train.minutes` ends it. The model ends with the weights of
    the best validation accuracy (the first of equals) where the recipe restores them. Raises RunError when the loss is
    no longer a number.
    """
    recipe, group, checkpoints, stop = training.recipe, training.group, training.checkpoints, training.stop
    settings, batches, validation = recipe.train, training.batches, training.validation
    model.to(working_type(training.precision))
    sync_layers(model, group.batch_part, alone=group.size == 1)
    batches = replace(batches, rank=group.rank, ranks=group.size)
    validation = replace(validation, rows=validation.rows[part_of(len(validation.rows), group.rank, group.size)])
    training = replace(training, batches=batches, validation=validation)
    state = first_state(model, training)
    if checkpoints:
        checkpoints.restore(state, group)
    with deterministic():
        while not ended(state.history, settings):
            lr = train_epoch(state, training)
            start = time.perf_counter()
            loss, accuracy = (group.sum(state.sums).sum(0) / state.seen).tolist()
            if state.losses is not None and state.fresh is not None:
                seen_now = group.sum(state.fresh)
                state.losses = torch.where(seen_now > 0, seen_now, state.losses)
                state.fresh.zero_()
            with averaged(state):
                val_accuracy, val_loss = evaluate(model, validation, group)
                if not isfinite(val_loss):
                    raise diverged("validation", state, lr=settings.lr, checkpoints=checkpoints)
                state.history = state.history.with_epoch(
                    accuracy=accuracy,
                    loss=loss,
                    val_accuracy=val_accuracy,
                    val_loss=val_loss,
                    learning_rate=lr,
                    images=float(state.seen),
                    epoch_seconds=round(state.seconds + time.perf_counter() - start, 3),
                )
                training.reporter.say(epoch_line(state.history, settings, images=state.seen))
                if epochs_since_best(state.history.val_accuracy) == 0:
                    state.best = copy_state(model)
            state.epoch, state.step, state.seen, state.seconds = state.epoch + 1, 0, 0, 0.0
            state.sums.zero_()
            asked = group.any(stop()) and not ended(state.history, settings)  # a training that has ended needs no stop
            if checkpoints and group.any(asked or checkpoints.due(epoch_ended=True)):
                checkpoints.save(state, group)
            if asked:
                raise Interrupted(f"training: interrupted after epoch {state.epoch}")
    group.batch_part.whole, group.batch_part.part = 0, slice(None)
    if stopped_early(state.history, settings.early_stop):
        training.reporter.say(f"no better validation accuracy for {settings.early_stop} epochs: stopped early")
    final = state.best if settings.restore_best else state.average
    if final is not None:
        model.load_state_dict(final)
    return state.history


def first_state(model: nn.Module, training: Training) -> State:
    """The state before the first step: layers frozen and rates set as the recipe asks for models with weights."""
    settings, batches = training.recipe.train, training.batches
    pretrained = begins_with_weights(training.recipe.model)
    optimizer = make_optimizer(model, settings, layer_decay=settings.layer_decay if pretrained else 1.0)
    state = State(model, optimizer, copy_state(model), torch.zeros(training.group.size, 2, device=batches.device))
    if settings.average:
        state.average = copy_state(model)
    if settings.hard_epochs:
        state.losses, state.fresh = (torch.zeros(len(batches.rows), device=batches.device) for _ in range(2))
    return state


def train_epoch(state: State, training: Training) -> float:
    """Take the steps of `state.epoch` that are left, or that the budget allows; returns the last learning rate."""
    batches, recipe, group, checkpoints = training.batches, training.recipe, training.group, training.checkpoints
    settings, epoch, all_steps = recipe.train, state.epoch, batches.training_steps()
    before, start, seen_before = state.seconds, time.perf_counter(), state.seen
    whole = settings.epochs * all_steps  # steps of the schedule

    def position(taken: float) -> float:
        """How far the schedule is, in steps: by those that were taken or, if further, by the budget that is spent."""
        if settings.minutes is None:
            return taken
        spent = sum(state.history.epoch_seconds) + before + time.perf_counter() - start
        return max(taken, min(group.agreed(spent) / (60 * settings.minutes), 1) * whole)

    def rate_at(at: float) -> float:
        return learning_rate(settings, step=at, steps_per_epoch=all_steps, val_accuracy=state.history.val_accuracy)

    at = position(epoch * all_steps)
    chosen = harder_images(state, settings, epoch=int(at / all_steps))
    images = len(batches.rows) if chosen is None else len(chosen)
    steps = batches.training_steps(images)
    images = min(images, steps * batches.batch_size)  # a last batch that is too small is left out
    first_bad = torch.full((), steps, device=batches.device)  # the first step whose loss was too large or no number
    lr = rate_at(position(epoch * all_steps + (steps - 1) * all_steps / steps))  # of a resume after the last step

    network = in_training(state.model, training, at=at)
    thaws = settings.freeze > 0 and settings.thaw < 1 and at < settings.thaw * whole
    shuffled = batches.shuffled(
        recipe.seed,
        epoch,
        recipe=recipe.augment,
        flips=training.flips,
        first=state.step,
        chosen=chosen,
        balanced=settings.balance == "sampling",
    )
    with growing(state.model) as grow:
        for step, batch in shuffled:
            at = position(epoch * all_steps + step * all_steps / steps)  # an epoch of fewer images is still an epoch
            lr = rate_at(at)
            set_learning_rate(state.optimizer, lr)
            grow(settings.start_size, at / whole)
            if thaws and at >= settings.thaw * whole:
                network, thaws = in_training(state.model, training, at=at), False
            loss = take_step(state, batch, training, network=network)
            state.step = step + 1
            first_bad = torch.where(loss < DIVERGED, first_bad, first_bad.clamp(max=step))

            spent = time.perf_counter() - start
            state.seconds = before + spent
            rate = (state.seen - seen_before) / spent
            training.reporter.advance(epoch_name(epoch, settings), state.seen, images, f"{rate:,.0f} images/s")
            if settings.minutes is not None and epoch == 0 and step == min(PLAN_STEPS, steps - 1):
                training.reporter.say(budget_line(settings, rate, images=images))
            # Processes must agree on these two, which makes them wait for each other: not in each step.
            may_ask = group.size == 1 or step % AGREE_STEPS == 0
            asked = may_ask and group.any(training.stop())
            wanted = may_ask and group.any(asked or (checkpoints is not None and checkpoints.due(epoch_ended=False)))
            if (wanted or step % FINITE_STEPS == 0 or step == steps - 1) and group.any(bool(first_bad < steps)):
                where = f"step {int(first_bad) + 1}" if first_bad < steps else "a step of another process"
                raise diverged(where, state, lr=settings.lr, checkpoints=checkpoints)
            if checkpoints and wanted:
                checkpoints.save(state, group)
            if asked:
                raise Interrupted(f"training: interrupted after step {step + 1} of epoch {epoch + 1}")
            if at >= whole:  # the budget is spent
                break
    return lr


def in_training(model: nn.Module, training: Training, *, at: float) -> nn.Module:
    """Let those layers learn whose turn it is, `at` in steps of the schedule; returns the model as it is to be called:
    compiled, or averaging its gradients over processes."""
    settings, steps = training.recipe.train, training.batches.training_steps()
    let_learn(model, training.recipe, frozen=at < settings.thaw * settings.epochs * steps)
    if isinstance(model, Preparable):
        model.freeze_input(settings.input_epochs is not None and at >= settings.input_epochs * steps)
    return training.group.wrap(compiled(model) if settings.compile else model)


def take_step(state: State, batch: Batch, training: Training, *, network: nn.Module) -> Tensor:
    """Move the weights once and count the batch's results in `state`; returns the loss, a scalar without gradient.

    network: the model as it is called, compiled or averaging its gradients over processes.
    """
    recipe, group, kind = training.recipe, training.group, working_type(training.precision)
    torch.manual_seed(derived_seed(recipe.seed, state.epoch, state.step, DROPOUT))
    group.batch_part.whole, group.batch_part.part = batch.whole, part_of(batch.whole, group.rank, group.size)
    device = batch.images.device
    with casting(training.precision, device), quick_gradients(device, compiled=recipe.train.compile):
        logits = network(batch.images.to(kind))
    loss = classification_loss(logits.to(kind), batch, recipe=recipe.train, weights=training.class_weights)
    if training.teacher:
        loss = distillation_loss(loss, logits.to(kind), training.teacher.logits(batch.images), recipe=recipe.distill)
    state.optimizer.zero_grad(set_to_none=True)
    # Gradients are averaged over processes: by this weight, that is their mean over the whole batch's images.
    weight = len(batch.labels) * group.size / batch.whole
    (loss if weight == 1 else loss * weight).backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    if state.average is not None:
        taken = state.epoch * training.batches.training_steps() + state.step
        # The first steps' averages are short, else the initial weights would stay in them: (1 + t) / (10 + t), as in
        # TensorFlow's moving averages.
        move_average(state.average, state.model, min(recipe.train.average, (1 + taken) / (10 + taken)))
    loss = loss.detach()
    state.seen += batch.whole
    right = (logits.argmax(1) == batch.labels).sum()
    state.sums[group.rank] += torch.stack([loss * len(batch.labels), right])
    if state.fresh is not None:
        note_losses(state.fresh, logits.detach(), batch)
    return loss


def harder_images(state: State, settings: TrainRecipe, *, epoch: int) -> NDArray[np.int64] | None:
    """Positions in `rows` of the images that an epoch trains on where the recipe asks for the harder ones; None: all.

    After the idea in airbench96 (arXiv:2404.00498) of spending late steps on images that are not learned yet. There a
    small network picks them in each batch; here it is the loss that each had when it was last seen.
    """
    if state.losses is None or epoch < max(settings.epochs - settings.hard_epochs, 1):
        return None
    count = max(round(settings.hard_share * len(state.losses)), 2)
    positions: NDArray[np.int64] = (
        state.losses.argsort(descending=True, stable=True)[:count].sort().values.cpu().numpy()
    )
    return positions


@torch.no_grad()
def note_losses(fresh: Tensor, logits: Tensor, batch: Batch) -> None:
    """Write each image's cross-entropy at its position; never quite 0, which stands for not seen."""
    losses = functional.cross_entropy(logits.float(), batch.labels, reduction="none")
    fresh[torch.from_numpy(batch.positions).to(fresh.device, non_blocking=True)] = losses.clamp(min=1e-12)


def compiled(model: nn.Module) -> nn.Module:
    """The model through torch.compile, once a shape: kernels for any shape would differ after a resume."""
    result: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]  # of a module, it gives a module
    return result


def move_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Let the averaged values take one step towards the model's; counters are copied."""
    values = model.state_dict()
    floats = [name for name, value in values.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in floats], [values[name] for name in floats], 1 - decay)
    for name in values.keys() - floats:
        average[name].copy_(values[name])


@contextmanager
def averaged(state: State) -> Iterator[None]:
    """The model with its averaged weights, where there are any; given back as it was."""
    if state.average is None:
        yield
        return
    own = copy_state(state.model)
    state.model.load_state_dict(state.average)
    yield
    state.model.load_state_dict(own)


def diverged(where: str, state: State, *, lr: float, checkpoints: Checkpoints | None) -> RunError:
    """What to say when the loss is no longer a number."""
    saved = checkpoints.all() if checkpoints else []
    good = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint before it"
    return RunError(
        f"training: expected a loss that falls, received NaN, infinity or more than {DIVERGED:,.0f} in {where} of "
        f"epoch {state.epoch + 1}; {good}; try a lower train.lr (it is {lr:g}) or a warm-up (train.warmup_epochs)"
    )


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's values now, unaffected by later steps."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
