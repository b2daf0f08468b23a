"""Stems for small images: convolutional networks made for 224 pixels, as they should begin at 32.

Such a network reduces its images fourfold in its first layers; a 32-pixel image would reach the last stage as a single
point. Without those reductions it sees the small image as it would a large one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

PROBE = 128  # pixels a side of the image that finds out which layers reduce; all of timm's stages divide it
EARLY = 4  # reductions up to this one are taken back
KERNEL = 3  # pixels a side of a stem's filters that are larger, rebuilt


def fit_to_small(net: nn.Module, *, loaded: bool) -> tuple[str, ...]:
    """Take back the first fourfold reduction of a network, in place; returns what was done, a sentence each change.

    Strides become 1 and pooling goes. Filters of the first layer that are larger than 3×3, or patches, become 3×3: if
    they were `loaded`, resampled (as patches are in FlexiViT, arXiv:2212.08013), else drawn anew.
    """
    notes = []
    for name, layer in early_reductions(net):
        parent = net.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, nn.Conv2d):
            setattr(parent, name.rpartition(".")[2], nn.Identity())
            notes.append(f"{name}: pooling removed")
        elif layer.in_channels == 3 and max(layer.kernel_size) > KERNEL:
            setattr(parent, name.rpartition(".")[2], _small_stem(layer, loaded=loaded))
            how = "resampled" if loaded else "drawn anew"
            notes.append(f"{name}: filters of {layer.kernel_size[0]}×{layer.kernel_size[1]} {how} as 3×3, stride 1")
        else:
            layer.padding = tuple(side // 2 for side in layer.kernel_size)
            notes.append(f"{name}: stride {layer.stride[0]} to 1")
            layer.stride = (1, 1)
    return tuple(notes)


def early_reductions(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, layer) of the layers that reduce images, from their full size to a fourth of it."""
    probe = copy.deepcopy(net).to("meta").eval()  # shapes without values: nothing is computed
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            before, after = inputs[0].shape, output.shape
            if len(before) == len(after) == 4 and after[-1] < before[-1] and PROBE // before[-1] < EARLY:
                found.append(name)

        return look

    for name, layer in probe.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) or type(layer).__name__ == "BlurPool2d":
            layer.register_forward_hook(watch(name))  # of the probe, which ends here
    probe(torch.empty(1, 3, PROBE, PROBE, device="meta"))
    return [(name, net.get_submodule(name)) for name in found]


def _small_stem(layer: nn.Conv2d, *, loaded: bool) -> nn.Conv2d:
    stem = nn.Conv2d(3, layer.out_channels, KERNEL, padding=KERNEL // 2, bias=layer.bias is not None)
    stem.to(layer.weight.device)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    with torch.no_grad():
        if loaded:
            from timm.layers.patch_embed import resample_patch_embed

            stem.weight.copy_(resample_patch_embed(layer.weight, [KERNEL, KERNEL]))
        if layer.bias is not None and stem.bias is not None:
            stem.bias.copy_(layer.bias)
    return stem
