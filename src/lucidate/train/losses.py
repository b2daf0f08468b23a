"""What training minimizes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from lucidate.core.recipe import TrainRecipe


def classification_loss(logits: Tensor, labels: Tensor, *, recipe: TrainRecipe) -> Tensor:
    """Mean cross-entropy in nats, a scalar; lower is better. logits: (B, K); labels: (B,) int64."""
    return functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
