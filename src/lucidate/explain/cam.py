"""Class activation maps: where the features lie that speak for a class. One forward and one short backward a batch.

Everything before the layer runs without gradients, and gradients are taken of the layer's output alone: most of a
network is passed through once, forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lucidate.core.errors import ExplainError
from lucidate.explain.layers import ActivationHook, Layer, attribute_set, borrowed, patch_grid


@dataclass(frozen=True, eq=False)
class Maps:
    """Heatmaps of a batch.

    raw: (B, h, w) float32, 0 or more, in the layer's own grid and scale: 0 everywhere is an empty map. logits: (B, K),
    of the same pass.
    """

    raw: Tensor
    logits: Tensor


def class_maps(
    model: nn.Module,
    images: Tensor,
    layer: Layer,
    *,
    method: str = "gradcam",
    target: Tensor | None = None,
    against: Tensor | None = None,
) -> Maps:
    """Heatmaps of a batch of normalized images (B, 3, S, S).

    target: (B,) class to explain, default the predicted one. against: (B,) another class; the maps then say what speaks
    for the first rather than the second. The model comes back as it was, also after an exception.
    """
    if method not in METHODS and method != "eigencam":
        raise ExplainError(f"--method: expected one of {', '.join((*METHODS, 'eigencam'))}, received {method!r}")
    with borrowed(model) as hook, torch.set_grad_enabled(method != "eigencam"):
        tap = ActivationHook(gradients=method != "eigencam")
        hook(model.get_submodule(layer.name), tap)
        logits = model(images)
        if tap.output is None:
            raise ExplainError(f"explain: expected layer {layer.name} to run, received an answer without it")
        activations = layer.as_map(tap.output.detach()).float()
        if method == "eigencam":
            return Maps(first_component(activations), logits.detach())
        gradients = layer.as_map(target_gradients(logits, tap.output, target, against)).float()
    return Maps(METHODS[method](activations, gradients), logits.detach())


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


def attention_rollout(model: nn.Module, images: Tensor) -> Maps:
    """How much CLS, or the mean token, draws on each patch through all blocks of a vision transformer.

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

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
        weights.append(inputs[0].mean(1))

    with borrowed(model) as hook, torch.no_grad(), attribute_set(attentions, "fused_attn", False):
        for module in attentions:
            hook(module.attn_drop, keep)  # type: ignore[arg-type]
        logits = model(images)
    return Maps(roll_out(weights, skip=skip).reshape(-1, *grid), logits)


def roll_out(weights: list[Tensor], *, skip: int) -> Tensor:
    """(B, patches) from the blocks' attention (B, N, N), rows adding up to 1. skip: tokens before the patches."""
    identity = torch.eye(weights[0].shape[-1], device=weights[0].device)
    total = identity.expand_as(weights[0])
    for block in weights:
        total = (block.float() + identity) / 2 @ total
    asked = total[:, 0] if skip else total.mean(1)
    return asked[:, skip:]
