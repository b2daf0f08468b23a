"""Several models as one, so that an ensemble can be predicted, exported and served like any other model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lucidate.core.recipe import ModelRecipe
from lucidate.core.records import Section
from lucidate.data.preprocess import Preprocess
from lucidate.models.predictor import InferenceConfig, Views, model_logits
from lucidate.models.registry import written_options

Averaged = Literal["softmax", "logits"]


class Member(Section):
    """One model of an ensemble, and how it wants to be asked.

    order: the column of the member's logits that belongs to each class of the ensemble. share: its weight, the shares
    of all members adding up to 1. mirror: whether a mirrored image keeps its class, for `views`.
    """

    name: str
    model: ModelRecipe
    preprocess: Preprocess
    order: tuple[int, ...]
    views: Views
    mirror: bool
    share: float

    @property
    def inference(self) -> InferenceConfig:
        return InferenceConfig(self.preprocess, self.views, self.mirror, self.order)


class Options(Section):
    """What stands under `[model]` of an ensemble's recipe."""

    averaged: Averaged
    members: tuple[Member, ...]


class Ensemble(nn.Module):
    """The weighted mean of its members' probabilities, or of their logits. Gives logits (B, K).

    Takes (B, 3, S, S) float32 in [0, 1]: each member normalizes, and resizes, its own way. Averaged over
    probabilities, the logits are logarithms of the mean, so that their softmax is the mean. A member without a share
    is not asked. at_once: as in `InferenceModel`.
    """

    def __init__(self, members: tuple[Member, ...], models: list[nn.Module], averaged: Averaged) -> None:
        super().__init__()
        self.members = nn.ModuleList(models)
        self.settings = members
        self.averaged = averaged
        self.at_once = False

    def forward(self, images: Tensor) -> Tensor:
        used = [(net, one) for net, one in zip(self.members, self.settings, strict=True) if one.share > 0]
        answers = [
            model_logits(net, one.inference.normalize(images), one.inference, at_once=self.at_once) for net, one in used
        ]
        return average(torch.stack(answers), torch.tensor([one.share for _, one in used]), self.averaged)

    def set_views(self, views: Views) -> None:
        """Let every member be asked by these test-time views."""
        self.settings = tuple(member.model_copy(update={"views": views}) for member in self.settings)


def average(logits: Tensor, shares: Tensor, averaged: Averaged) -> Tensor:
    """(M, B, K) logits of M members → (B, K). shares: (M,), above 0, adding up to 1."""
    shares = shares.to(logits)[:, None, None]
    if averaged == "logits":
        return (shares * logits).sum(0)
    return (logits.log_softmax(-1) + shares.log()).logsumexp(0)


def build_ensemble(options: Mapping[str, Any], num_classes: int, *, build: Callable[..., nn.Module]) -> Ensemble:
    """An ensemble whose members' weights follow; `build` makes each of them. Raises RecipeError."""
    what = "the members of an ensemble as lucidate ensemble writes them"
    chosen = written_options(Options, options, what=what)
    models = [
        build(member.model, num_classes, image_size=member.preprocess.size, initial=False) for member in chosen.members
    ]
    return Ensemble(chosen.members, models, chosen.averaged)
