"""BatchNorm folded into the convolutions before it, for predictions that read and write memory once less a layer.

In evaluation mode BatchNorm is a scale and a shift of each channel, which a convolution's filters and bias can bear.
Of networks on a processor, whose layers wait for memory, this is up to half of the time.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

CLOSE = 1e-3  # of the largest logit: float32's rounding through a hundred layers is a hundredth of it


@torch.no_grad()
def fold_norms(model: nn.Module, *, images: Tensor) -> nn.Module:
    """A copy that gives the same answers up to rounding; the model itself where it would not, or there is no norm.

    model: in evaluation mode. images: what it takes. Convolutions are paired with the norms that they feed, once each,
    by one forward pass.
    """
    if not any(_folds(module) for module in model.modules()):
        return model
    names = {module: name for name, module in model.named_modules()}
    pairs = [(names[conv], names[norm]) for conv, norm in followed(model, images)]
    found = copy.deepcopy(model)
    layers: dict[str, Any] = dict(found.named_modules())
    for first, second in pairs:
        conv, norm = layers[first], layers[second]
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        found.set_submodule(second, _rest(norm))
    before, after = model(images), found(images)
    return found if bool((before - after).abs().max() <= CLOSE * before.abs().max()) else model


def followed(model: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution whose output goes into a norm that can be folded; neither is called twice in a pass."""
    calls: dict[nn.Module, int] = {}
    made_by: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by the output's identity, which lives as long as it is here
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def made(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made_by[id(output)] = (module, output)

    def taken(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.BatchNorm2d) and inputs and id(inputs[0]) in made_by:
            pairs.append((made_by[id(inputs[0])][0], module))

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d) or _folds(m)]
    hooks = [layer.register_forward_hook(made) for layer in layers]
    hooks += [layer.register_forward_pre_hook(taken) for layer in layers]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in pairs if calls[conv] == calls[norm] == 1]


def _folds(module: nn.Module) -> bool:
    """Whether it is a BatchNorm with statistics, plain or timm's, which ends in an activation."""
    known = type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"
    return known and isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a norm that was folded: an activation; its dropout is none in evaluation mode."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()
