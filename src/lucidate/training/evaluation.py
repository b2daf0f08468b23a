"""What a network in training says of images as they stand: its accuracy and loss, and embeddings for a linear probe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import RecipeError
from lucidate.core.progress import Reporter
from lucidate.data.batches import Batches
from lucidate.models.build import backbone
from lucidate.predict.infer import with_progress
from lucidate.training.distributed import ProcessGroup
from lucidate.training.precision import casting

PROBE_IMAGES = 5_000  # fit a head nearly as well as all of a large data set, in seconds
DECAYS = (0.003, 0.01, 0.03, 0.1, 0.3)  # of the head's weights for embeddings of unit deviation
HELD_OUT = 5  # one image in five says which decay suits the others
PRECISION = 1e-7  # change of the loss that ends it early


def evaluate(model: nn.Module, batches: Batches, group: ProcessGroup | None = None) -> tuple[float, float]:
    """(accuracy as a share, mean cross-entropy in nats) on every row of `batches`, in all processes together."""
    sums = torch.zeros(3, dtype=torch.float64)
    if len(batches.rows):  # of a small split, a process may have none
        logits = outputs(model, batches, model).cpu()
        labels = torch.from_numpy(batches.labels[batches.rows])
        losses = functional.cross_entropy(logits.double(), labels, reduction="sum")
        sums = torch.stack([(logits.argmax(1) == labels).sum().double(), losses, torch.tensor(len(labels)).double()])
    right, loss, count = (group.sum(sums.to(group.device)) if group else sums).tolist()
    return right / count, loss / count


def outputs(
    model: nn.Module,
    batches: Batches,
    ask: Callable[[Tensor], Tensor],
    *,
    reporter: Reporter | None = None,
    task: str = "predicting",
) -> Tensor:
    """(M, …) float32, on the device: what `ask` gives for every row of `batches`, in order, one view each.

    Images come in the type of the model's weights. The model is in evaluation mode; its own is given back.
    """
    was_training = model.training
    model.eval()
    kind = next((p.dtype for p in model.parameters()), torch.float32)
    try:
        with torch.inference_mode():
            # Left on the device until the end: fetching each would make an accelerator wait.
            each = (ask(images.to(kind)).float() for images, _ in batches.in_order())
            parts = list(with_progress(each, len(batches.rows), task=task, reporter=reporter))
    finally:
        model.train(was_training)
    return torch.cat(parts)  # outside, since backward passes may not hold on to tensors of the inference mode


def train_head(model: nn.Module, batches: Batches, *, steps: int, precision: str, reporter: Reporter) -> float:
    """Fit the last layer of a timm model to cached embeddings of the training images, in place; returns its accuracy
    on a fifth of them that was held out.

    At most 5,000 images, evenly spaced, are seen once, as they stand. Its weight decay is the one under which the
    others predict a fifth of them best. steps: at most so many of L-BFGS over all of them: the problem is convex.
    Fine-tuning that begins with a fitted head does not pull the backbone about (A. Kumar et al., arXiv:2202.10054).
    """
    if backbone(model)[0] is None:
        raise RecipeError(f"train.probe_steps: expected a model of timm's, received {type(model).__name__}")
    chosen = np.linspace(0, len(batches.rows) - 1, min(len(batches.rows), PROBE_IMAGES)).astype(np.int64)
    batches = replace(batches, rows=batches.rows[chosen])

    def embed(images: Tensor) -> Tensor:
        with casting(precision, batches.device):
            return model.embed(images)  # type: ignore[operator]

    embeddings = outputs(model, batches, embed, reporter=reporter, task="embedding")
    labels = torch.from_numpy(batches.labels[batches.rows]).to(batches.device)
    head: nn.Linear = model.head  # type: ignore[assignment]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(labels.device)
    held = torch.zeros_like(labels, dtype=torch.bool)
    held[order[: max(len(labels) // HELD_OUT, 1)]] = True
    judged: list[tuple[float, float, float]] = []  # loss, decay, accuracy
    for decay in DECAYS:
        fit_head(head, embeddings[~held], labels[~held], decay=decay, steps=steps)
        with torch.no_grad():
            logits = head(embeddings[held])
        right = (logits.argmax(1) == labels[held]).float().mean()
        judged.append((float(functional.cross_entropy(logits, labels[held])), decay, float(right)))
    _, decay, accuracy = min(judged)
    fit_head(head, embeddings, labels, decay=decay, steps=steps)
    reporter.say(f"linear probe: {accuracy:.4f} of {int(held.sum()):,} images held out (weight decay {decay:g})")
    return accuracy


def fit_head(head: nn.Linear, embeddings: Tensor, labels: Tensor, *, decay: float, steps: int) -> None:
    """Minimize mean cross-entropy in nats, and `decay` times the squares of weights as they were for embeddings of unit
    deviation. embeddings: (N, D) float32; labels: (N,) int64."""
    deviation = embeddings.std(0, correction=0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=steps, tolerance_change=PRECISION, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(head(embeddings), labels) + decay * (head.weight * deviation).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    head.zero_grad(set_to_none=True)
