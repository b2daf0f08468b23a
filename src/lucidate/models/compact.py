"""The compact CNN: three blocks of two convolutions, global average pooling, one hidden dense layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lucidate.core.errors import RecipeError
from lucidate.models.registry import register


class Compact(nn.Module):
    """blocks → global average pooling → head. Takes (B, 3, S, S) float32, gives logits (B, K)."""

    def __init__(self, blocks: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.blocks = blocks
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self._pooled(images))
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """What the last layer sees: (B, D)."""
        features: Tensor = self.head[:-1](self._pooled(images))
        return features

    def to_keras(self, layers: Any, value: Any) -> Any:
        """See `registry.ToKeras`."""
        for block in self.blocks:
            for layer in block.children():
                value = layers.any(layer, value)
        value = layers.keras.GlobalAveragePooling2D()(value)
        *hidden, last = self.head
        for layer in hidden:
            value = layers.any(layer, value)
        return layers.dense(last, value, name="logits")

    def _pooled(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(images)
        return features.mean(dim=(2, 3))


@register("compact")
def compact(
    num_classes: int,
    *,
    widths: tuple[int, ...] = (32, 64, 128),
    dropout: tuple[float, ...] = (0.25, 0.30, 0.40),
    dense: int = 256,
    dense_dropout: float = 0.5,
) -> Compact:
    """323,946 values for ten classes, BatchNorm's statistics included.

    widths: channels of each block. dropout: rate after each block. dense, dense_dropout: the hidden layer of the head.
    Images of 8 pixels or more a side (each block halves them).
    """
    if len(widths) != len(dropout):
        raise RecipeError(f"model.dropout: expected a rate a block ({len(widths)}), received {len(dropout)}")
    if min(widths) < 1 or dense < 1:
        raise RecipeError(f"model.widths, model.dense: expected 1 or more, received {list(widths)} and {dense}")
    if not all(0 <= rate < 1 for rate in (*dropout, dense_dropout)):
        raise RecipeError(f"model.dropout: expected rates from 0 to below 1, received {[*dropout, dense_dropout]}")
    blocks, channels = [], 3
    for width, rate in zip(widths, dropout, strict=True):
        blocks.append(_block(channels, width, rate))
        channels = width
    head = nn.Sequential(
        nn.Linear(channels, dense), nn.ReLU(inplace=True), nn.Dropout(dense_dropout), nn.Linear(dense, num_classes)
    )
    model = Compact(nn.Sequential(*blocks), head)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def _block(channels: int, width: int, rate: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (channels, width):
        # No bias: the BatchNorm after it would take it away.
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    # ReLU and pooling may change places, since ReLU never decreases: after it, a quarter of the values is left to it.
    layers.insert(-1, nn.MaxPool2d(2))
    # Whole maps are not dropped (Dropout2d): single values, as in the Keras network this follows.
    return nn.Sequential(*layers, nn.Dropout(rate))
