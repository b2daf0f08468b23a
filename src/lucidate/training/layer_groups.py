"""What depends on how deep a layer lies: which are frozen, and at which rate each of the others learns."""

from __future__ import annotations

from typing import Any

from torch import nn

from lucidate.core.errors import RecipeError
from lucidate.models.build import backbone

NORMS = (nn.modules.batchnorm._BatchNorm,)  # layers that change in training even where no gradient reaches them


def layer_of(model: nn.Module) -> dict[str, int]:
    """Parameter name → its layer, 0 at the images, the head last. Raises RecipeError for models that do not say."""
    net, prefix = backbone(model)
    if net is None:
        raise RecipeError(
            "train.freeze, train.layer_decay: expected a model of timm's, which know how deep their layers lie, "
            f"received {type(model).__name__}"
        )
    from timm.models import group_parameters

    layers: dict[str, int] = group_parameters(net, net.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    return {prefix + name: layer for name, layer in layers.items()}


def freeze(model: nn.Module, share: float) -> None:
    """Let the first `share` of the layers (0 to 1) keep their weights; the head, the last layer, always learns."""
    if not share:
        return
    layers = layer_of(model)
    last = max(layers.values())
    for name, parameter in model.named_parameters():
        if layers[name] < min(round(share * (last + 1)), last):
            parameter.requires_grad_(False)


def hold_frozen(model: nn.Module) -> None:
    """After `model.train()`: normalizations whose weights are all frozen keep their statistics as well."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, NORMS) and own and not any(p.requires_grad for p in own):
            module.eval()


def layered_groups(model: nn.Module, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Parameter groups whose rates fall by `layer_decay` a layer from the head towards the images.

    After H. Bao et al., "BEiT" (arXiv:2106.08254). Weight decay acts on matrices and filters only.
    """
    layers = layer_of(model)
    last = max(layers.values())
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (layers[name], parameter.ndim > 1)
            scale = layer_decay ** (last - layers[name])
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault(key, {"params": [], "lr_scale": scale, "weight_decay": decay})["params"].append(parameter)
    return list(groups.values())
