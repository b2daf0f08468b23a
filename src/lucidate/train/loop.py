"""The training loop, in one piece."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import RunError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe
from lucidate.core.records import History
from lucidate.data.batches import Batches, derived_seed
from lucidate.predict.infer import predict_logits
from lucidate.train.losses import classification_loss
from lucidate.train.optim import make_optimizer, set_learning_rate
from lucidate.train.schedule import epochs_since_best, learning_rate

DROPOUT = 1  # keeps the seed of a step's dropout apart from that of its augmentation


def train_model(
    model: nn.Module, batches: Batches, *, validation: Batches, recipe: Recipe, flips: bool, reporter: Reporter
) -> History:
    """Train `model` in place by the recipe and return its history.

    Everything random is a function of (seed, epoch, step). The model ends with the weights of the best validation
    accuracy (the first of equals) where the recipe restores them. flips: whether the source allows mirroring.
    Raises RunError when the loss is no longer a number.
    """
    settings = recipe.train
    optimizer = make_optimizer(model, settings)
    steps = batches.training_steps
    history, best = History(), copy_state(model)
    with deterministic():
        for epoch in range(settings.epochs):
            start, seen = time.perf_counter(), 0
            totals = torch.zeros(2, device=batches.device)  # summed loss, right answers: read once an epoch
            model.train()
            shuffled = batches.shuffled(recipe.seed, epoch, recipe=recipe.augment, flips=flips)
            for step, (images, labels) in enumerate(shuffled):
                lr = learning_rate(
                    settings,
                    step=epoch * steps + step,
                    steps_per_epoch=steps,
                    val_accuracy=history.val_accuracy,
                )
                set_learning_rate(optimizer, lr)
                torch.manual_seed(derived_seed(recipe.seed, epoch, step, DROPOUT))
                logits = model(images)
                loss = classification_loss(logits, labels, recipe=settings)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                seen += len(labels)
                totals += torch.stack([loss.detach() * len(labels), (logits.argmax(1) == labels).sum()])
                rate = seen / (time.perf_counter() - start)
                reporter.advance(
                    f"epoch {epoch + 1}/{settings.epochs}", seen, len(batches.rows), f"{rate:,.0f} images/s"
                )
            mean_loss, accuracy = (totals / seen).tolist()
            if not mean_loss < float("inf"):
                raise RunError(
                    f"training: expected a finite loss, received {mean_loss} in epoch {epoch + 1}; "
                    f"try a lower train.lr (it is {settings.lr:g})"
                )
            val_accuracy, val_loss = evaluate(model, validation)
            seconds = time.perf_counter() - start
            history = history.with_epoch(
                accuracy=accuracy,
                loss=mean_loss,
                val_accuracy=val_accuracy,
                val_loss=val_loss,
                learning_rate=lr,
                epoch_seconds=round(seconds, 3),
            )
            reporter.say(epoch_line(history, settings.epochs, rate=rate))
            since_best = epochs_since_best(history.val_accuracy)
            if since_best == 0:
                best = copy_state(model)
            if settings.early_stop is not None and since_best >= settings.early_stop:
                reporter.say(f"no better validation accuracy for {since_best} epochs: stopped early")
                break
    if settings.restore_best:
        model.load_state_dict(best)
    return history


def evaluate(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """(accuracy as a share, mean cross-entropy in nats) on every row of `batches`."""
    logits = torch.from_numpy(predict_logits(model, batches))
    labels = torch.from_numpy(batches.labels[batches.rows])
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return accuracy, functional.cross_entropy(logits.double(), labels).item()


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's values now, unaffected by later steps."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def epoch_line(history: History, epochs: int, *, rate: float) -> str:
    """One finished epoch in words, with the time that the rest will take if none stops early."""
    left = (epochs - history.epochs) * sum(history.epoch_seconds) / history.epochs
    remaining = f", {left // 60:.0f} min {left % 60:02.0f} s left" if left >= 0.5 else ""
    return (
        f"epoch {history.epochs}/{epochs}: loss {history.loss[-1]:.3f}, accuracy {history.accuracy[-1]:.4f}, "
        f"validation loss {history.val_loss[-1]:.3f}, accuracy {history.val_accuracy[-1]:.4f}, "
        f"lr {history.learning_rate[-1]:.2g}, {rate:,.0f} images/s, {history.epoch_seconds[-1]:.1f} s{remaining}"
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
