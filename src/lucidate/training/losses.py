"""What training minimizes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from lucidate.core.recipe import DistillRecipe, TrainRecipe
from lucidate.data.augment import partners
from lucidate.data.batches import Batch


def classification_loss(logits: Tensor, batch: Batch, *, recipe: TrainRecipe, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy in nats, a scalar; lower is better. logits: (B, K) float32. weights: (K,), of each class.

    Mixed images count for their own label by `share`, and for their partner's by the rest.
    """

    def cross_entropy(labels: Tensor) -> Tensor:
        smoothing = recipe.label_smoothing
        if weights is None:
            return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        # Divided by the number of images, not by the batch's sum of weights: rare images then weigh the same in each.
        losses = functional.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, reduction="none")
        return losses.mean()

    loss = cross_entropy(batch.labels)
    if batch.share == 1:
        return loss
    theirs = batch.labels[partners(len(batch.labels)).to(batch.labels.device)]
    return batch.share * loss + (1 - batch.share) * cross_entropy(theirs)


def distillation_loss(loss: Tensor, logits: Tensor, teacher_logits: Tensor, *, recipe: DistillRecipe) -> Tensor:
    """The loss on labels, and the divergence from a teacher by the weight that the recipe gives it, in nats.

    (1 - weight) · loss + weight · T² · KL(teacher ‖ student), a scalar, both softmaxes at temperature T; T² keeps the
    size of its gradient as it is at 1. logits, teacher_logits: (B, K). Source: G. Hinton,
    O. Vinyals and J. Dean, "Distilling the knowledge in a neural network" (arXiv:1503.02531), section 2.
    """
    ours, theirs = ((values / recipe.temperature).log_softmax(1) for values in (logits, teacher_logits))
    soft = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return (1 - recipe.weight) * loss + recipe.weight * recipe.temperature**2 * soft
