"""Class activation maps: where the features lie that speak for a class. One forward and one short backward a batch.

Everything before the layer runs without gradients, and gradients are taken of the layer's output alone: most of a
network is passed through once, forward. A model is borrowed for looking inside: hooks, mode and gradients are given
back as they were, whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lucidate.core.errors import ExplainError
from lucidate.core.registry import choices

LEAST = 4  # cells a side: a smaller map says hardly more than where the middle is


@dataclass(frozen=True)
class Layer:
    """A layer and what its output is made of.

    name: in the model. grid: (height, width) of its map. tokens: whether the output is (B, N, C), one token a cell in
    reading order, behind `skip` others such as CLS.
    """

    name: str
    grid: tuple[int, int]
    tokens: bool = False
    skip: int = 0

    def as_map(self, output: Tensor) -> Tensor:
        """The layer's output, or its gradient, as a map (B, C, H, W)."""
        if not self.tokens:
            return output
        cells = output[:, self.skip :].transpose(1, 2)
        return cells.reshape(*cells.shape[:2], *self.grid)


def find_layer(model: nn.Module, image_size: int, *, name: str | None = None) -> Layer:
    """The last feature map of at least 4×4, or the layer that is named. Raises ExplainError.

    Of a vision transformer, the normalization before the last block's attention: after it, only CLS still counts.
    image_size: pixels a side of what the model takes.
    """
    seen = trace(model, image_size)
    good = [layer for layer in seen if min(layer.grid) >= LEAST]
    if name is not None:
        known = {layer.name: layer for layer in seen}
        if name not in known:
            raise ExplainError(f"--layer: expected {choices(name, list(known))}, received {name!r}")
        if known[name] not in good:
            height, width = known[name].grid
            instead = f"use {good[-1].name}" if good else "no layer of this model has one"
            raise ExplainError(
                f"--layer: expected a map of at least {LEAST}×{LEAST}, {name} has {height}×{width}; {instead}"
            )
        return known[name]
    if not good:
        largest = max(seen, key=lambda layer: min(layer.grid), default=None)
        found = f"at most {largest.grid[0]}×{largest.grid[1]} ({largest.name})" if largest else "none"
        raise ExplainError(
            f"explain: expected a feature map of at least {LEAST}×{LEAST}, received {found} from images of "
            f"{image_size} pixels; set data.image_size higher, or fit = 'native' for a model of timm's"
        )
    before_attention = [layer for layer in good if layer.tokens and layer.name.endswith("norm1")]
    return (before_attention or good)[-1]


@torch.no_grad()
def trace(model: nn.Module, image_size: int) -> list[Layer]:
    """Every layer whose output is a map, in the order in which they run; of one that runs twice, its last turn."""
    found: dict[str, Layer] = {}
    parameter = next(model.parameters(), torch.empty(0))  # files from elsewhere show none of theirs
    grid, skip = patch_grid(model)

    def look(name: str, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        if output.ndim == 4:
            height, width = output.shape[2:]
            layer = Layer(name, (height, width) if height > 1 and width > 1 else (1, 1))
        elif grid and output.ndim == 3 and output.shape[1] == grid[0] * grid[1] + skip:
            layer = Layer(name, grid, tokens=True, skip=skip)
        else:
            return
        found.pop(name, None)
        found[name] = layer

    with borrowed(model) as hook:
        for name, module in model.named_modules():
            if name:
                hook(module, lambda _, __, output, name=name: look(name, output))
        model(torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype))
    return list(found.values())


def patch_grid(model: nn.Module) -> tuple[tuple[int, int] | None, int]:
    """(rows and columns of patches, tokens before them) of a vision transformer; (None, 0) of other models."""
    for module in model.modules():
        embed = getattr(module, "patch_embed", None)
        if embed is not None and getattr(embed, "grid_size", None) is not None:
            return tuple(embed.grid_size), int(getattr(module, "num_prefix_tokens", 0))
    return None, 0


@contextmanager
def borrowed(model: nn.Module) -> Iterator[Callable[[nn.Module, Callable[..., Any]], RemovableHandle]]:
    """The model in evaluation mode, no parameter asking for a gradient; yields `hook(module, function)`.

    At the end, also after an exception: every module's mode, every parameter's requires_grad and gradient are what they
    were, and the hooks that were set through it are gone.
    """
    modes = [(module, module.training) for module in model.modules()]
    wants = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with ExitStack() as hooks:

        def hook(module: nn.Module, function: Callable[..., Any]) -> RemovableHandle:
            handle = module.register_forward_hook(function)
            hooks.callback(handle.remove)
            return handle

        try:
            model.eval()
            for parameter, _, _ in wants:
                parameter.requires_grad_(False)
            yield hook
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, wanted, gradient in wants:
                parameter.requires_grad_(wanted)
                parameter.grad = gradient


class ActivationHook:
    """A forward hook that keeps a layer's output, cut off from what came before, so that gradients end there."""

    def __init__(self, *, gradients: bool) -> None:
        self.gradients = gradients
        self.output: Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:  # noqa: ARG002
        self.output = output.detach().requires_grad_(self.gradients)
        # An activation that works in place would write over what is kept, and may not on a leaf: it gets a copy.
        return self.output.clone() if self.gradients else output


def class_maps(
    model: nn.Module,
    images: Tensor,
    layer: Layer,
    *,
    method: str = "gradcam",
    target: Tensor | None = None,
    against: Tensor | None = None,
) -> Tensor:
    """Heatmaps (B, h, w) float32, 0 or more, in the layer's own grid and scale, of normalized images (B, 3, S, S).

    target: (B,) class to explain, default the predicted one. against: (B,) another class; the maps then say what speaks
    for the first rather than the second. The model comes back as it was, also after an exception.
    """
    with borrowed(model) as hook, torch.set_grad_enabled(method != "eigencam"):
        tap = ActivationHook(gradients=method != "eigencam")
        hook(model.get_submodule(layer.name), tap)
        logits = model(images)
        if tap.output is None:
            raise ExplainError(f"explain: expected layer {layer.name} to run, received an answer without it")
        activations = layer.as_map(tap.output.detach()).float()
        if method == "eigencam":
            return first_component(activations)
        gradients = layer.as_map(target_gradients(logits, tap.output, target, against)).float()
    return METHODS[method](activations, gradients)


def target_gradients(logits: Tensor, output: Tensor, target: Tensor | None, against: Tensor | None) -> Tensor:
    """The gradient of each image's target logit by the layer's output. Images do not touch: one sum serves all."""
    chosen = logits.argmax(1) if target is None else target.to(logits.device)
    rows = torch.arange(len(logits), device=logits.device)
    score = logits[rows, chosen]
    if against is not None:
        score = score - logits[rows, against.to(logits.device)]
    (gradient,) = torch.autograd.grad(score.sum(), output)
    return gradient


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their mean gradient. R. Selvaraju et al., arXiv:1610.02391, equations 1 and 2."""
    return torch.einsum("bchw,bc->bhw", activations, gradients.mean((2, 3))).relu()


def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Activations weighted by their own gradients. R. Draelos and L. Carin, arXiv:2011.08891."""
    return (activations * gradients).sum(1).relu()


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """As HiResCAM, gradients that speak against left out. P. Jiang et al., IEEE TIP 30 (2021)."""
    return (activations * gradients.relu()).sum(1).relu()


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by positive gradients, each place by its share. A. Chattopadhay et al., arXiv:1710.11063."""
    squared, cubed = gradients**2, gradients**3
    total = activations.sum((2, 3), keepdim=True)
    share = squared / (2 * squared + total * cubed + 1e-6)
    weights = (torch.where(gradients != 0, share, 0) * gradients.relu()).sum((2, 3))
    return torch.einsum("bchw,bc->bhw", activations, weights).relu()


def first_component(activations: Tensor) -> Tensor:
    """The features' first principal component: what the layer sees, whatever the class. M. Muhammad, arXiv:2008.00299.

    Its sign is arbitrary; NumPy's decomposition gives the one of the usual implementation, torch's another.
    """
    features = activations.flatten(2).transpose(1, 2)
    features = features - features.mean(1, keepdim=True)
    directions = np.linalg.svd(features.cpu().numpy(), full_matrices=False)[2][:, 0]
    projected = torch.einsum("bnc,bc->bn", features, torch.from_numpy(directions).to(features.device))
    return projected.view(len(projected), *activations.shape[2:]).relu()


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": grad_cam,
    "hirescam": hires_cam,
    "layercam": layer_cam,
    "gradcam++": grad_cam_plus_plus,
}


def attention_rollout(model: nn.Module, images: Tensor) -> Tensor:
    """(B, h, w), how much CLS, or the mean token, draws on each patch through all blocks of a vision transformer.

    Heads are averaged, the residual path counted by half, and blocks multiplied: S. Abnar and W. Zuidema,
    arXiv:2005.00928. It is the same for every class. Raises ExplainError for a model without such attention.
    """
    grid, skip = patch_grid(model)
    attentions = [
        module for module in model.modules() if hasattr(module, "attn_drop") and hasattr(module, "fused_attn")
    ]
    if grid is None or not attentions:
        raise ExplainError("--method: expected a vision transformer for rollout, received another model; use gradcam")
    weights: list[Tensor] = []
    fused = [module.fused_attn for module in attentions]
    try:
        with borrowed(model) as hook, torch.no_grad():
            for module in attentions:
                module.fused_attn = False  # type: ignore[assignment]  # which would not show its weights
                hook(module.get_submodule("attn_drop"), lambda _, inputs, __: weights.append(inputs[0].mean(1)))
            model(images)
    finally:
        for module, was in zip(attentions, fused, strict=True):
            module.fused_attn = was
    return roll_out(weights, skip=skip).reshape(-1, *grid)


def roll_out(weights: list[Tensor], *, skip: int) -> Tensor:
    """(B, patches) from the blocks' attention (B, N, N), rows adding up to 1. skip: tokens before the patches."""
    identity = torch.eye(weights[0].shape[-1], device=weights[0].device)
    total = identity.expand_as(weights[0])
    for block in weights:
        total = (block.float() + identity) / 2 @ total
    asked = total[:, 0] if skip else total.mean(1)
    return asked[:, skip:]
