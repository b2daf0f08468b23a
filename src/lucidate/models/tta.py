"""Test-time views: the mean of what a model says of an image, its mirror image, and both moved by one pixel."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Views = Literal["one", "mirror", "mirror-shift"]


def tta_logits(model: nn.Module, images: Tensor, *, views: Views, mirror: bool) -> Tensor:
    """Logits (B, K) of a batch, averaged over views.

    images: (B, 3, S, S). views: "one" is the image as it is; "mirror" adds its mirror image; "mirror-shift" weighs
    these by half, and by the other half both moved one pixel up and left, and down and right, edges reflected (after
    K. Jordan, arXiv:2404.00498, section 3.5). mirror: False where a mirrored image does not keep its class.
    """

    def both_sides(batch: Tensor) -> Tensor:
        logits: Tensor = model(batch)
        if views == "one" or not mirror:
            return logits
        return (logits + model(batch.flip(3))) / 2

    if views != "mirror-shift":
        return both_sides(images)
    size = images.shape[-1]
    padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
    moved = [both_sides(padded[:, :, place : place + size, place : place + size]) for place in (0, 2)]
    return both_sides(images) / 2 + torch.stack(moved).mean(0) / 2
