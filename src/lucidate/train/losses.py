"""What training minimizes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from lucidate.core.recipe import TrainRecipe
from lucidate.data.augment import partners
from lucidate.data.batches import Batch


def classification_loss(logits: Tensor, batch: Batch, *, recipe: TrainRecipe) -> Tensor:
    """Mean cross-entropy in nats, a scalar; lower is better. logits: (B, K) float32.

    Blended images count for their own label by `share`, and for their partner's by the rest.
    """
    loss = functional.cross_entropy(logits, batch.labels, label_smoothing=recipe.label_smoothing)
    if batch.share == 1:
        return loss
    theirs = batch.labels[partners(len(batch.labels)).to(batch.labels.device)]
    other = functional.cross_entropy(logits, theirs, label_smoothing=recipe.label_smoothing)
    return batch.share * loss + (1 - batch.share) * other
