"""The training loop, in one piece."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import Interrupted, RunError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe
from lucidate.core.records import History
from lucidate.data.batches import Batches, derived_seed
from lucidate.predict.infer import predict_logits
from lucidate.train.losses import classification_loss
from lucidate.train.optim import make_optimizer, set_learning_rate
from lucidate.train.resume import Checkpoints, State
from lucidate.train.schedule import epochs_since_best, learning_rate

DROPOUT = 1  # keeps the seed of a step's dropout apart from that of its augmentation
FINITE_STEPS = 50  # between looks at whether the loss is still finite: each look makes a GPU wait


def train_model(
    model: nn.Module,
    batches: Batches,
    *,
    validation: Batches,
    recipe: Recipe,
    flips: bool,
    reporter: Reporter,
    checkpoints: Checkpoints | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> History:
    """Train `model` in place by the recipe and return its history.

    Everything random is a function of (seed, epoch, step), so a training that goes on from a checkpoint ends with
    the same bits as one that was never interrupted. The model ends with the weights of the best validation accuracy
    (the first of equals) where the recipe restores them.

    flips: whether the source allows mirroring. stop: asked after each step; True saves a checkpoint and raises
    Interrupted. Raises RunError when the loss is no longer a number.
    """
    settings = recipe.train
    state = State(model, make_optimizer(model, settings), copy_state(model), torch.zeros(2, device=batches.device))
    if checkpoints:
        checkpoints.restore(state)
    with deterministic():
        while state.epoch < settings.epochs and not stopped_early(state.history, settings.early_stop):
            lr = train_epoch(state, batches, recipe=recipe, flips=flips, reporter=reporter, keep=checkpoints, stop=stop)
            start = time.perf_counter()
            loss, accuracy = (state.sums / state.seen).tolist()
            val_accuracy, val_loss = evaluate(model, validation)
            state.history = state.history.with_epoch(
                accuracy=accuracy,
                loss=loss,
                val_accuracy=val_accuracy,
                val_loss=val_loss,
                learning_rate=lr,
                epoch_seconds=round(state.seconds + time.perf_counter() - start, 3),
            )
            reporter.say(epoch_line(state.history, settings.epochs, images=state.seen))
            if epochs_since_best(state.history.val_accuracy) == 0:
                state.best = copy_state(model)
            state.epoch, state.step, state.seen, state.seconds = state.epoch + 1, 0, 0, 0.0
            state.sums.zero_()
            if checkpoints and checkpoints.due(epoch_ended=True):
                checkpoints.save(state)
    if stopped_early(state.history, settings.early_stop):
        reporter.say(f"no better validation accuracy for {settings.early_stop} epochs: stopped early")
    if settings.restore_best:
        model.load_state_dict(state.best)
    return state.history


def train_epoch(
    state: State,
    batches: Batches,
    *,
    recipe: Recipe,
    flips: bool,
    reporter: Reporter,
    keep: Checkpoints | None,
    stop: Callable[[], bool],
) -> float:
    """Take the steps of `state.epoch` that are left; returns the last learning rate."""
    settings, steps, epoch = recipe.train, batches.training_steps, state.epoch
    before, start, seen_before = state.seconds, time.perf_counter(), state.seen
    first_bad = torch.full((), steps, device=batches.device)  # the first step whose loss was not finite

    def rate_of(step: int) -> float:
        place = epoch * steps + step
        return learning_rate(settings, step=place, steps_per_epoch=steps, val_accuracy=state.history.val_accuracy)

    state.model.train()
    shuffled = batches.shuffled(recipe.seed, epoch, recipe=recipe.augment, flips=flips, first=state.step)
    for step, (images, labels) in shuffled:
        set_learning_rate(state.optimizer, rate_of(step))
        torch.manual_seed(derived_seed(recipe.seed, epoch, step, DROPOUT))
        logits = state.model(images)
        loss = classification_loss(logits, labels, recipe=settings)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        state.step, state.seen = step + 1, state.seen + len(labels)
        state.sums += torch.stack([loss.detach() * len(labels), (logits.argmax(1) == labels).sum()])
        first_bad = torch.where(loss.detach().isfinite(), first_bad, first_bad.clamp(max=step))

        spent = time.perf_counter() - start
        state.seconds = before + spent
        note = f"{(state.seen - seen_before) / spent:,.0f} images/s"
        reporter.advance(f"epoch {epoch + 1}/{settings.epochs}", state.seen, len(batches.rows), note)
        asked = stop()
        wanted = asked or (keep is not None and keep.due(epoch_ended=False))
        if wanted or step % FINITE_STEPS == 0 or step == steps - 1:
            require_finite(int(first_bad), steps, state=state, lr=settings.lr, keep=keep)
        if keep and wanted:
            keep.save(state)
        if asked:
            raise Interrupted(f"training: interrupted after step {step + 1} of epoch {epoch + 1}")
    return rate_of(steps - 1)


def require_finite(first_bad: int, steps: int, *, state: State, lr: float, keep: Checkpoints | None) -> None:
    """Raise RunError if a step's loss was not finite; first_bad: that step, or `steps`."""
    if first_bad == steps:
        return
    saved = keep.all() if keep else []
    good = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint before it"
    raise RunError(
        f"training: expected a finite loss, received NaN or infinity in step {first_bad + 1} of epoch "
        f"{state.epoch + 1}; {good}; try a lower train.lr (it is {lr:g}) or a warm-up (train.warmup_epochs)"
    )


def stopped_early(history: History, patience: int | None) -> bool:
    """Whether the validation accuracy has not had a new best for `patience` epochs."""
    return patience is not None and history.epochs > 0 and epochs_since_best(history.val_accuracy) >= patience


def evaluate(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """(accuracy as a share, mean cross-entropy in nats) on every row of `batches`."""
    logits = torch.from_numpy(predict_logits(model, batches))
    labels = torch.from_numpy(batches.labels[batches.rows])
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return accuracy, functional.cross_entropy(logits.double(), labels).item()


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's values now, unaffected by later steps."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def epoch_line(history: History, epochs: int, *, images: int) -> str:
    """One finished epoch in words, with the time that the rest will take if none stops early."""
    left = (epochs - history.epochs) * sum(history.epoch_seconds) / history.epochs
    remaining = f", {left // 60:.0f} min {left % 60:02.0f} s left" if left >= 0.5 else ""
    return (
        f"epoch {history.epochs}/{epochs}: loss {history.loss[-1]:.3f}, accuracy {history.accuracy[-1]:.4f}, "
        f"validation loss {history.val_loss[-1]:.3f}, accuracy {history.val_accuracy[-1]:.4f}, "
        f"lr {history.learning_rate[-1]:.2g}, {images / history.epoch_seconds[-1]:,.0f} images/s, "
        f"{history.epoch_seconds[-1]:.1f} s{remaining}"
    )


@contextmanager
def deterministic() -> Iterator[None]:
    """Reproducible kernels, and torch's global generators borrowed and given back."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        # Warn only: CUDA has no deterministic version of a few operations, and a run there is better than none.
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
