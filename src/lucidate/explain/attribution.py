"""Attribution to pixels, by Captum: slower than class activation maps, and not bound to a layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lucidate.explain.layers import borrowed
from lucidate.models.external import External

STEPS = 32  # of the path integral: its error on small networks is then below a percent
WINDOW, STRIDE = 8, 4  # of the gray square that is moved over images of 32 pixels; larger images scale them


def integrated_gradients(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """(B, S, S), what each pixel adds to the target's logit on the way from the mean image; negative where it speaks
    against. M. Sundararajan et al., arXiv:1703.01365.

    images: (B, 3, S, S), normalized, so that 0 is the mean of training images. target: (B,).
    """
    from captum.attr import IntegratedGradients

    with borrowed(model):
        parts = IntegratedGradients(model).attribute(
            images,
            baselines=_nothing(model, images),
            target=target.to(images.device),
            n_steps=STEPS,
            internal_batch_size=len(images) * 4,
        )
    return parts.detach().sum(1).float()


def occlusion(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """(B, S, S), the mean loss of the target's logit when a square of the mean color hides a place.

    M. Zeiler and R. Fergus, arXiv:1311.2901.
    """
    from captum.attr import Occlusion

    scale = max(images.shape[-1] / 32, WINDOW**-1)
    window, stride = max(round(WINDOW * scale), 2), max(round(STRIDE * scale), 1)
    with borrowed(model), torch.no_grad():
        parts = Occlusion(model).attribute(
            images,
            sliding_window_shapes=(3, window, window),
            strides=(3, stride, stride),
            target=target.to(images.device),
            baselines=_nothing(model, images),
        )
    return parts.detach().mean(1).float()


def _nothing(model: nn.Module, images: Tensor) -> Tensor | int:
    """What an image is that shows nothing: the mean color, which is 0 for what we train."""
    return model.baseline(images) if isinstance(model, External) else 0


PIXELWISE: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
}
