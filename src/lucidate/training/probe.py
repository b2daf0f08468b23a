"""A linear probe: the head alone, trained on embeddings that are computed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import RecipeError
from lucidate.core.progress import Reporter
from lucidate.data.batches import Batches
from lucidate.models.build import backbone
from lucidate.predict.loop import with_progress
from lucidate.training.precision import casting

IMAGES = 5_000  # fit a head nearly as well as all of a large data set, in seconds
DECAY = 1e-4  # of the head's weights: without it, separable embeddings would let them grow without end
PRECISION = 1e-7  # change of the loss that ends it early


def train_head(model: nn.Module, batches: Batches, *, steps: int, precision: str, reporter: Reporter) -> float:
    """Fit the last layer of a timm model to cached embeddings of the training images, in place; returns its accuracy.

    At most 5,000 images, evenly spaced, are seen once, as they stand. steps: at most so many of L-BFGS over all of
    them: the problem is convex.
    Fine-tuning that begins with a fitted head does not pull the backbone about (A. Kumar et al., arXiv:2202.10054).
    """
    if backbone(model)[0] is None:
        raise RecipeError(f"train.probe_steps: expected a model of timm's, received {type(model).__name__}")
    chosen = np.linspace(0, len(batches.rows) - 1, min(len(batches.rows), IMAGES)).astype(np.int64)
    batches = replace(batches, rows=batches.rows[chosen])
    embeddings, labels = embed(model, batches, precision=precision, reporter=reporter)
    head: nn.Linear = model.head  # type: ignore[assignment]
    with torch.no_grad():
        head.weight.zero_()
        if head.bias is not None:
            head.bias.zero_()
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=steps, tolerance_change=PRECISION, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(head(embeddings), labels) + DECAY * head.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    head.zero_grad(set_to_none=True)
    with torch.no_grad():
        accuracy = float((head(embeddings).argmax(1) == labels).float().mean())
    reporter.say(f"linear probe: the head fits {accuracy:.4f} of {len(labels):,} training images")
    return accuracy


@torch.no_grad()
def embed(model: nn.Module, batches: Batches, *, precision: str, reporter: Reporter) -> tuple[Tensor, Tensor]:
    """(N, D) float32 embeddings of every row in order, and their (N,) labels, on the device. The mode is given back."""
    was_training = model.training
    model.eval()

    def one_by_one() -> Iterator[Tensor]:
        for images, targets in batches.in_order():
            with casting(precision, batches.device):
                embeddings: Tensor = model.embed(images).float()  # type: ignore[operator]
            labels.append(targets)
            yield embeddings

    labels: list[Tensor] = []
    try:
        parts = list(with_progress(one_by_one(), len(batches.rows), task="embedding", reporter=reporter))
    finally:
        model.train(was_training)
    return torch.cat(parts), torch.cat(labels)
