"""A trained model that teaches another: its logits for the student's own batches.

It gets the student's images as they are, augmented and mixed (after L. Beyer et al., "Knowledge distillation: a good
teacher is patient and consistent", arXiv:2106.05237), in its own size and normalization. Its logits come in the
student's order of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidate.analysis.formatting import listed
from lucidate.core import alignment
from lucidate.core.atomic import sha256
from lucidate.core.errors import RunError
from lucidate.core.recipe import DistillRecipe
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.models.checkpoint import load_model
from lucidate.models.ensemble import Ensemble
from lucidate.models.predictor import InferenceConfig, model_logits
from lucidate.training.precision import casting, working_type

SHOWN = 5  # class names in a message: data sets have hundreds


@dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen model in evaluation mode.

    config: how it wants to see images, and its column of each of the student's classes. seen: what was done to the
    images that it is shown, the student's preprocessing. precision: that of the training.
    """

    model: nn.Module
    config: InferenceConfig
    seen: Preprocess
    precision: str

    def logits(self, images: Tensor) -> Tensor:
        """Its logits for a batch, one view an image: (B, K) in the working type, without gradient.

        images: (B, 3, S, S), normalized for the student.
        """
        kind = working_type(self.precision)
        with torch.inference_mode(), casting(self.precision, images.device):
            answers = model_logits(self.model, self.as_own(images.to(kind)), self.config).to(kind)
        return answers.clone()  # backward passes may not hold on to tensors of the inference mode

    def as_own(self, images: Tensor) -> Tensor:
        """The student's images (B, 3, S, S) in the teacher's size and normalization."""
        own, seen = self.config.preprocess, self.seen
        if (own.size, own.mean, own.std) == (seen.size, seen.mean, seen.std):
            return images
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (seen.mean, seen.std))
        return self.config.normalize(images * std + mean)


def distillation_loss(loss: Tensor, logits: Tensor, teacher_logits: Tensor, *, recipe: DistillRecipe) -> Tensor:
    """The loss on labels, and the divergence from a teacher by the weight that the recipe gives it, in nats.

    (1 - weight) · loss + weight · T² · KL(teacher ‖ student), a scalar, both softmaxes at temperature T; T² keeps the
    size of its gradient as it is at 1. logits, teacher_logits: (B, K). Source: G. Hinton,
    O. Vinyals and J. Dean, "Distilling the knowledge in a neural network" (arXiv:1503.02531), section 2.
    """
    ours, theirs = ((values / recipe.temperature).log_softmax(1) for values in (logits, teacher_logits))
    soft = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return (1 - recipe.weight) * loss + recipe.weight * recipe.temperature**2 * soft


def load_teacher(
    run: RunDir, *, classes: Sequence[str], seen: Preprocess, device: torch.device, precision: str
) -> Teacher:
    """A run of any kind as a teacher of others; an ensemble answers by one view of each member.

    classes: the student's, in their order. seen: the student's preprocessing. Raises RunError for other classes.
    """
    card = RunCard.load(run.card)
    order = class_order(card, classes)
    config = InferenceConfig(Preprocess.from_dict(card.preprocess), order=order)
    model = load_model(run, device=device).to(working_type(precision)).requires_grad_(False)
    for part in model.modules():
        if isinstance(part, Ensemble):
            part.set_views("one")
    return Teacher(model, config, seen, precision)


def class_order(card: RunCard, classes: Sequence[str]) -> tuple[int, ...]:
    """The teacher's column of each of the student's classes. Raises RunError where they are not the same classes."""
    missing = [name for name in classes if name not in card.classes]
    other = [name for name in card.classes if name not in classes]
    if missing or other:
        parts = [
            f"{what} {listed(names[:SHOWN])}" + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            for what, names in (("without", missing), ("with", other))
            if names
        ]
        raise RunError(
            f"teacher: expected the {len(classes)} classes of the images, received a run {' and '.join(parts)}; choose "
            "a run that was trained on these classes"
        )
    return tuple(alignment.class_order(classes, card.classes).tolist())


def require_teacher(recipe: DistillRecipe, run: RunDir | None) -> None:
    """Refuse another teacher than the recipe names, or none where it names one. Raises RunError."""
    found = sha256(run.weights) if run else None
    if found != recipe.teacher:
        raise RunError(
            f"teacher: expected {_weights(recipe.teacher)}, as distill.teacher says, received {_weights(found)}; "
            "lucidate distill enters it"
        )


def note_on(run: RunDir, recipe: DistillRecipe) -> str:
    """What a reader of a student's results must know of its teacher."""
    card = RunCard.load(run.card)
    trained = "elsewhere" if card.origin else f"on {card.split.sizes['train']:,} images"
    return (
        f"Distilled from {card.name} ({card.model.name}, {card.model.parameters:,} parameters, trained {trained}): its "
        f"answers, at temperature {recipe.temperature:g}, have "
        f"{100 * recipe.weight:g} % of the training loss."
    )


def _weights(digest: str | None) -> str:
    return f"weights of checksum {digest[:12]}" if digest else "none"
