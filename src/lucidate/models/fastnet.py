"""fastnet: the custom network, built for accuracy per second of training.

After K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv:2404.00498): a first layer that whitens
2×2 patches, filters that begin as the identity, BatchNorm with learned shifts only, max pooling before it. Ours are
the code, the widths, and a pooling that takes images of any size.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lucidate.core.errors import RecipeError
from lucidate.models.registry import register

PATCH = 2  # pixels a side of the patches that the first layer whitens
WHITENED = 2 * 3 * PATCH**2  # its filters: each principal direction and its negative
NOISE = 5e-4  # added to the variances, so that directions without signal are not blown up


class Group(nn.Module):
    """Convolution, pooling by two, then `depth` - 1 more convolutions; BatchNorm and GELU after each.

    From three on, the first one's result is added to the last one's.
    """

    def __init__(self, channels: int, width: int, *, depth: int, momentum: float) -> None:
        super().__init__()
        self.conv1 = _identity_conv(channels, width)
        self.norm1 = _shifting_norm(width, momentum)
        self.convs = nn.ModuleList(_identity_conv(width, width) for _ in range(depth - 1))
        self.norms = nn.ModuleList(_shifting_norm(width, momentum) for _ in range(depth - 1))
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.GELU()
        self.skips = depth > 2

    def forward(self, features: Tensor) -> Tensor:
        features = self.conv1(features)
        # Of tiny images, a single value is left in the end: it stays.
        features = self.pool(features) if features.shape[-1] > 1 else features
        features = first = self.activation(self.norm1(features))
        last = len(self.convs) - 1
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            features = norm(conv(features))
            features = self.activation(features + first if self.skips and place == last else features)
        return features

    def fold(self) -> None:
        """Take the first BatchNorm into its convolution: as it keeps the order of values, it may pass the pooling."""
        if bool((self.norm1.weight > 0).all()):
            self.conv1 = fuse_conv_bn_eval(self.conv1, self.norm1)
            self.norm1 = nn.Identity()  # type: ignore[assignment]

    def to_keras(self, layers: Any, value: Any) -> Any:
        value = layers.any(self.conv1, value)
        if value.shape[1] > 1:  # a single value stays
            value = layers.any(self.pool, value)
        value = first = layers.any(self.activation, layers.any(self.norm1, value))
        last = len(self.convs) - 1
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            value = layers.any(norm, layers.any(conv, value))
            if self.skips and place == last:
                value = layers.keras.Add()([value, first])
            value = layers.any(self.activation, value)
        return value


class FastNet(nn.Module):
    """whiten → groups → global max pooling → head. Takes (B, 3, S, S) float32, S ≥ 3; gives logits (B, K)."""

    def __init__(self, num_classes: int, *, widths: tuple[int, ...], depth: int, momentum: float, scale: float) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, WHITENED, PATCH)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        self.activation = nn.GELU()
        channels = (WHITENED, *widths)
        self.groups = nn.Sequential(*(Group(a, b, depth=depth, momentum=momentum) for a, b in pairwise(channels)))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(images)) * self.scale
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """What the head sees: (B, D)."""
        features: Tensor = self.groups(self.activation(self.whiten(images)))
        return features.amax(dim=(2, 3))

    def freeze_input(self, frozen: bool) -> None:
        """Whether the bias of the first layer still learns; without, no gradient reaches images: a tenth of a step."""
        self.whiten.bias.requires_grad_(not frozen)  # type: ignore[union-attr]

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Set the first layer so that its outputs on patches of these images are uncorrelated and of variance 1.

        images: (N, 3, S, S) normalized training images; some thousands suffice.
        """
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * PATCH**2)
        covariance = patches.double().T.cov()
        variances, directions = torch.linalg.eigh(covariance)
        filters = (directions / (variances + NOISE).sqrt()).T.flip(0).reshape(-1, 3, PATCH, PATCH)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def to_keras(self, layers: Any, value: Any) -> Any:
        """See `registry.ToKeras`."""
        value = layers.any(self.activation, layers.any(self.whiten, value))
        for group in self.groups:
            value = group.to_keras(layers, value)  # type: ignore[operator]
        value = layers.keras.GlobalMaxPooling2D()(value)
        return layers.dense(self.head, value, scale=self.scale, name="logits")


@register("fastnet")
def fastnet(
    num_classes: int,
    *,
    widths: tuple[int, ...] = (64, 192, 256),
    depth: int = 2,
    momentum: float = 0.4,
    scale: float = 1 / 9,
) -> FastNet:
    """The custom network: whitened input, three groups of convolutions, built for accuracy per second.

    widths: channels of each group. depth: convolutions in each. momentum: of BatchNorm's running statistics, high since
    training is short. scale: of the logits. Groups that find a single value leave it so: images may be tiny.
    """
    if min(widths) < 1:
        raise RecipeError(f"model.widths: expected 1 or more, received {list(widths)}")
    if depth < 1:
        raise RecipeError(f"model.depth: expected 1 or more, received {depth}")
    return FastNet(num_classes, widths=widths, depth=depth, momentum=momentum, scale=scale)


def _identity_conv(channels: int, width: int) -> nn.Conv2d:
    """A 3×3 convolution whose first filters pass their channel through: the layer begins as no obstacle."""
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[: min(channels, width)])
    return conv


def _shifting_norm(width: int, momentum: float) -> nn.BatchNorm2d:
    """BatchNorm whose scale stays 1: the convolution before the next one can learn it."""
    norm = nn.BatchNorm2d(width, momentum=momentum)
    norm.weight.requires_grad_(False)
    return norm
