"""Heatmaps of any model by any method, one batch at a time: what the rest of the room calls."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import ExplainError
from lucidate.core.registry import choices
from lucidate.explain.attribution import PIXELWISE
from lucidate.explain.cam import METHODS as CAMS
from lucidate.explain.cam import attention_rollout, class_maps
from lucidate.explain.layers import Layer, find_layer, patch_grid
from lucidate.models.ensemble import Ensemble
from lucidate.models.external import require_gradients

METHODS = (*CAMS, "eigencam", "rollout", *PIXELWISE)
FORWARD = ("eigencam", "occlusion")  # what needs answers alone, of any model
Layers = Mapping[str, Layer]  # by the member's name; "" of a model that has none


def layers_for(model: nn.Module, image_size: int, *, method: str, name: str | None = None) -> Layers:
    """The layer that maps are taken from, of each member of an ensemble; none for methods that need none.

    Raises ExplainError for a method or layer that does not exist or does not suit the model.
    """
    if method not in METHODS:
        raise ExplainError(f"--method: expected {choices(method, list(METHODS))}, received {method!r}")
    if method not in FORWARD:
        require_gradients(model, refuse=_needs_gradients)
    if method in PIXELWISE or method == "rollout":
        if name is not None:
            raise ExplainError(f"--layer: expected none with {method}, which is taken from no layer, received {name!r}")
        if method == "rollout" and patch_grid(model)[0] is None:
            raise ExplainError("--method: expected a vision transformer for rollout, received another; use gradcam")
        return {}
    if isinstance(model, Ensemble):
        if name is not None:
            raise ExplainError("--layer: expected none for an ensemble, whose members have their own")
        return {
            member.name: find_layer(net, member.preprocess.size)
            for member, net in zip(model.settings, model.members, strict=True)
        }
    return {"": find_layer(model, image_size, name=name)}


def _needs_gradients(kind: str) -> ExplainError:
    return ExplainError(
        f"--method: expected {' or '.join(FORWARD)} for an {kind.upper()} graph, which answers but gives no gradients; "
        "or the model as .keras, or by a TOML that names it in timm"
    )


def heatmaps(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    method: str,
    layers: Layers,
    against: Tensor | None = None,
) -> Tensor:
    """(B, h, w) float32: what speaks for `target` (B,), rather than for `against` (B,) where that is given.

    images: (B, 3, S, S), as the model takes them. Class activation maps are 0 or more and come in the grid of their
    layer; attributions to pixels may be negative. Of an ensemble, the members' mean (see `member_maps`).
    """
    if isinstance(model, Ensemble):
        maps = member_maps(model, images, target, method=method, layers=layers, against=against)
        shares = torch.tensor([member.share for member in model.settings], device=maps.device)
        return (maps * shares[:, None, None, None]).sum(0)
    if method in PIXELWISE:
        attribute = PIXELWISE[method]
        maps = attribute(model, images, target)
        return maps if against is None else maps - attribute(model, images, against)
    if method == "rollout":
        return attention_rollout(model, images).raw
    return class_maps(model, images, layers[""], method=method, target=target, against=against).raw


def member_maps(
    model: Ensemble,
    images: Tensor,
    target: Tensor,
    *,
    method: str,
    layers: Layers,
    against: Tensor | None = None,
) -> Tensor:
    """(M, B, S, S): each member's maps in the size of the images, scaled to a sum of 1, so that none drowns the rest.

    A map that is empty stays so.
    """
    parts = []
    for member, net in zip(model.settings, model.members, strict=True):
        order = torch.tensor(member.order, device=target.device)
        own = {"": layers[member.name]} if member.name in layers else {}
        maps = heatmaps(
            net,
            member.inference.normalize(images),
            order[target],
            method=method,
            layers=own,
            against=None if against is None else order[against],
        )
        maps = resized(maps, images.shape[-1])
        total = maps.abs().sum((1, 2), keepdim=True)
        parts.append(torch.where(total > 0, maps / total.clamp(min=1e-30), maps))
    return torch.stack(parts)


def resized(maps: Tensor, side: int) -> Tensor:
    """Maps (B, h, w) in the size of the images, (B, side, side); bilinear, the scale kept."""
    if maps.shape[-1] == side:
        return maps
    return functional.interpolate(maps[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
