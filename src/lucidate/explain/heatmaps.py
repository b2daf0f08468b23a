"""Heatmaps of any model by any method, one batch at a time: what the rest of the room calls.

Class activation maps stand in `cam`. Attribution to pixels, by Captum, is slower and not bound to a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import ExplainError
from lucidate.core.registry import choices
from lucidate.explain.cam import METHODS as CAMS
from lucidate.explain.cam import Layer, attention_rollout, borrowed, class_maps, find_layer, patch_grid
from lucidate.models.ensemble import Ensemble
from lucidate.models.external import External

STEPS = 32  # of the path integral: its error on small networks is then below a percent
WINDOW, STRIDE = 8, 4  # of the gray square that is moved over images of 32 pixels; larger images scale them


def integrated_gradients(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """(B, S, S), what each pixel adds to the target's logit on the way from the mean image; negative where it speaks
    against. M. Sundararajan et al., arXiv:1703.01365.

    images: (B, 3, S, S), normalized, so that 0 is the mean of training images. target: (B,).
    """
    from captum.attr import IntegratedGradients

    options = {"n_steps": STEPS, "internal_batch_size": len(images) * 4}
    return _attributed(IntegratedGradients, model, images, target, options).sum(1).float()


def occlusion(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """(B, S, S), the mean loss of the target's logit when the mean color hides a place (Zeiler, arXiv:1311.2901)."""
    from captum.attr import Occlusion

    scale = max(images.shape[-1] / 32, WINDOW**-1)
    window, stride = max(round(WINDOW * scale), 2), max(round(STRIDE * scale), 1)
    options = {"sliding_window_shapes": (3, window, window), "strides": (3, stride, stride)}
    with torch.no_grad():
        return _attributed(Occlusion, model, images, target, options).mean(1).float()


def _attributed(method: Any, model: nn.Module, images: Tensor, target: Tensor, options: Mapping[str, Any]) -> Tensor:
    """(B, 3, S, S), beside an image that shows nothing: the mean color, which is 0 for what we train."""
    nothing = model.baseline(images) if isinstance(model, External) else 0
    with borrowed(model):
        found: Tensor = method(model).attribute(images, baselines=nothing, target=target.to(images.device), **options)
    return found.detach()


PIXELWISE: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
}
METHODS = (*CAMS, "eigencam", "rollout", *PIXELWISE)
FORWARD = ("eigencam", "occlusion")  # what needs answers alone, of any model
Layers = Mapping[str, Layer]  # by the member's name; "" of a model that has none


def layers_for(model: nn.Module, image_size: int, *, method: str, name: str | None = None) -> Layers:
    """The layer that maps are taken from, of each member of an ensemble; none for methods that need none.

    Raises ExplainError for a method or layer that does not exist or does not suit the model.
    """
    if method not in METHODS:
        raise ExplainError(f"--method: expected {choices(method, list(METHODS))}, received {method!r}")
    files = [module for module in model.modules() if isinstance(module, External)]
    if method not in FORWARD and (blind := [file.kind for file in files if not file.engine.differentiable]):
        raise ExplainError(
            f"--method: expected {' or '.join(FORWARD)} for an {blind[0].upper()} graph, which answers but gives no "
            "gradients; or the model as .keras, or by a TOML that names it in timm"
        )
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


def heatmaps(
    model: nn.Module, images: Tensor, target: Tensor, *, method: str, layers: Layers, against: Tensor | None = None
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
        return attention_rollout(model, images)
    return class_maps(model, images, layers[""], method=method, target=target, against=against)


def member_maps(
    model: Ensemble, images: Tensor, target: Tensor, *, method: str, layers: Layers, against: Tensor | None = None
) -> Tensor:
    """(M, B, S, S): each member's maps in the size of images, scaled to a sum of 1, so that none drowns the rest."""
    parts = []
    for member, net in zip(model.settings, model.members, strict=True):
        order = torch.tensor(member.order, device=target.device)
        own = {"": layers[member.name]} if member.name in layers else {}
        shown, rival = member.inference.normalize(images), None if against is None else order[against]
        maps = heatmaps(net, shown, order[target], method=method, layers=own, against=rival)
        maps = resized(maps, images.shape[-1])
        total = maps.abs().sum((1, 2), keepdim=True)
        parts.append(torch.where(total > 0, maps / total.clamp(min=1e-30), maps))
    return torch.stack(parts)


def resized(maps: Tensor, side: int) -> Tensor:
    """Maps (B, h, w) in the size of the images, (B, side, side); bilinear, the scale kept."""
    if maps.shape[-1] == side:
        return maps
    return functional.interpolate(maps[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
