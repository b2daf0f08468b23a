"""Several models as one, so that an ensemble can be predicted, exported and served like any other model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import RecipeError
from lucidate.core.recipe import ModelRecipe
from lucidate.data.preprocess import Preprocess
from lucidate.models.tta import Views, tta_logits

Averaged = Literal["softmax", "logits"]


class Member(BaseModel):
    """One model of an ensemble, and how it wants to be asked.

    order: the column of the member's logits that belongs to each class of the ensemble. share: its weight, the shares
    of all members adding up to 1. mirror: whether a mirrored image keeps its class, for `views`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: ModelRecipe
    preprocess: Preprocess
    order: tuple[int, ...]
    views: Views
    mirror: bool
    share: float


class Options(BaseModel):
    """What stands under `[model]` of an ensemble's recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    averaged: Averaged
    members: tuple[Member, ...]


class Ensemble(nn.Module):
    """The weighted mean of its members' probabilities, or of their logits. Gives logits (B, K).

    Takes (B, 3, S, S) float32 in [0, 1]: each member normalizes, and resizes, its own way. Averaged over
    probabilities, the logits are logarithms of the mean, so that their softmax is the mean.
    """

    def __init__(self, members: tuple[Member, ...], models: list[nn.Module], averaged: Averaged) -> None:
        super().__init__()
        self.members = nn.ModuleList(models)
        self.settings = members
        self.averaged = averaged

    def forward(self, images: Tensor) -> Tensor:
        answers = [
            member_logits(model, member, images) for model, member in zip(self.members, self.settings, strict=True)
        ]
        return average(torch.stack(answers), torch.tensor([m.share for m in self.settings]), self.averaged)


def member_logits(model: nn.Module, member: Member, images: Tensor) -> Tensor:
    """One member's logits (B, K), in the ensemble's order of classes. images: (B, 3, S, S) in [0, 1]."""
    logits = tta_logits(model, normalized_for(member, images), views=member.views, mirror=member.mirror)
    return logits[:, torch.tensor(member.order, device=logits.device)]


def normalized_for(member: Member, images: Tensor) -> Tensor:
    """Images (B, 3, S, S) in [0, 1], as one member wants to see them."""
    own = member.preprocess
    if images.shape[-1] != own.size:
        images = functional.interpolate(images, (own.size, own.size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (own.mean, own.std))
    return (images - mean) / std


def average(logits: Tensor, shares: Tensor, averaged: Averaged) -> Tensor:
    """(M, B, K) logits of M members → (B, K). shares: (M,), adding up to 1; members without a share do not count."""
    used = shares > 0
    logits, shares = logits[used], shares[used].to(logits)[:, None, None]
    if averaged == "logits":
        return (shares * logits).sum(0)
    return (logits.log_softmax(-1) + shares.log()).logsumexp(0)


def build_ensemble(options: Mapping[str, Any], num_classes: int, *, build: Callable[..., nn.Module]) -> Ensemble:
    """An ensemble whose members' weights follow; `build` makes each of them. Raises RecipeError."""
    try:
        chosen = Options.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RecipeError(
            f"model.{key}: expected the members of an ensemble as lucidate ensemble writes them ({first['msg']})"
        ) from None
    models = [
        build(member.model, num_classes, image_size=member.preprocess.size, initial=False) for member in chosen.members
    ]
    return Ensemble(chosen.members, models, chosen.averaged)
