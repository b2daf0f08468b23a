"""Any model of timm, as `timm:NAME`: its head for our classes, its preprocessing, its weights, fitted to small images.

timm takes seconds to import: this file is imported when such a model is named. A convolutional network made for 224
pixels reduces its images fourfold in its first layers; a 32-pixel image would reach the last stage as a single point.
Without those reductions (`fit_to_small`) it sees the small image as it would a large one.
"""

from __future__ import annotations

import copy
import difflib
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import RecipeError, UnknownNameError
from lucidate.core.registry import TIMM
from lucidate.core.text import one_line
from lucidate.data.preprocess import Preprocess
from lucidate.models.pretrained import find_weights, load_into

_libraries: list[torch.library.Library] = []  # declarations end with their library


def declare_missing_operators() -> None:
    """Let `import torchvision` succeed where its compiled operators do not load; call it before.

    A torchvision built for CUDA does not import under a torch for processors, for want of two operators that none of
    our code calls: declared, without a body, they are enough for its Python parts. Does nothing where they exist.
    """
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _libraries.append(library)


declare_missing_operators()
import timm  # noqa: E402  (it imports torchvision)

PROBE = 128  # pixels a side of the image that finds out which layers reduce; all of timm's stages divide it
EARLY = 4  # reductions up to this one are taken back
KERNEL = 3  # pixels a side of a stem's filters that are larger, rebuilt
SMALL_GRID = 4  # tokens a side that a vision transformer should at least see


class Zoo(nn.Module):
    """A timm model. Takes (B, 3, S, S) float32, normalized; gives logits (B, K).

    net: timm's own model. size: pixels a side to which images are resized first, on the device; None: they are not.
    origin: where the weights that it began with came from. notes: what they went through to get here, a sentence each.
    """

    def __init__(
        self, net: nn.Module, *, size: int | None, interpolation: str, origin: str | None, notes: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.net: Any = net
        self.size = size
        self.interpolation = interpolation
        self.origin = origin
        self.notes = notes

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(self.resized(images))
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """What the head sees: (B, D)."""
        return self.net.forward_head(self.net.forward_features(self.resized(images)), pre_logits=True)

    @property
    def head(self) -> nn.Linear:
        """The last layer, embeddings → logits. Raises RecipeError where it is not a dense one."""
        head = self.net.get_classifier()
        if not isinstance(head, nn.Linear):
            raise RecipeError(f"model: expected one that ends in a dense layer, received a {type(head).__name__}")
        return head

    def resized(self, images: Tensor) -> Tensor:
        """The images at the side that the model asks for."""
        if self.size is None or images.shape[-1] == self.size:
            return images
        size, smaller = (self.size, self.size), self.size < images.shape[-1]
        return functional.interpolate(images, size, mode=self.interpolation, align_corners=False, antialias=smaller)


def timm_model(
    name: str,
    num_classes: int,
    image_size: int,
    initial: bool,
    *,
    pretrained: bool = False,
    weights: str | None = None,
    fit: str = "native",
    size: int | None = None,
    drop: float = 0.0,
    drop_path: float = 0.0,
) -> Zoo:
    """A timm model by its name in timm, which must exist, for images of `image_size` pixels a side.

    pretrained: begin with ImageNet weights, of an installed package or of the hub. weights: begin with those of a
    safetensors file in timm's format, whatever `pretrained` says. initial: False where weights follow anyway, and none
    are fetched. fit: "native" rebuilds the stem so that small images keep their resolution (a fourth of the usual
    reduction); "upsample" resizes them to `size`, by default the model's own. drop, drop_path: rates of dropout before
    the head and of stochastic depth.

    Raises RecipeError for options, WeightsError for weights.
    """
    if fit not in ("native", "upsample"):
        raise RecipeError(f"model.fit: expected 'native' or 'upsample', received {fit!r}")
    if size is not None and (fit == "native" or size < 1):
        raise RecipeError(f"model.size: expected pixels, with fit = 'upsample', received {size} with fit = {fit!r}")
    own: Any = timm.get_pretrained_cfg(name)
    begin = find_weights(name, pretrained=pretrained, weights=weights) if initial else None
    side = (size or own.input_size[-1]) if fit == "upsample" else image_size
    net = _create(name, num_classes, side, native=fit == "native", drop=drop, drop_path=drop_path)
    notes = (f"pretrained weights: {begin.origin}", *load_into(net, begin)) if begin else ()
    if fit == "native" and not _has_patches(net):
        notes += fit_to_small(net, loaded=begin is not None)
    mode = own.interpolation if own.interpolation in ("bilinear", "bicubic") else "bicubic"
    origin = begin.origin if begin else None
    return Zoo(net, size=side if fit == "upsample" else None, interpolation=mode, origin=origin, notes=notes)


def require_name(name: str) -> None:
    """Raise UnknownNameError, with names that are close, where timm has no such model."""
    architecture, _, tag = name.partition(".")
    exists = timm.is_model(architecture)
    known = timm.list_pretrained(f"{architecture}.*") if exists else timm.list_models()
    if exists and (not tag or name in known):
        return
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:5]
    near = ", ".join(TIMM + other for other in close)
    raise UnknownNameError(
        f"model: expected one of timm's {len(timm.list_models()):,} names, such as {near}; received {TIMM + name!r} "
        "(lucidate models --timm PATTERN lists more)"
    )


def names(pattern: str) -> list[str]:
    """timm's models whose names match a pattern such as "vit_tiny*", as a recipe names them."""
    return [TIMM + name for name in timm.list_models(pattern)]


def own_preprocess(name: str, fitted: Preprocess) -> Preprocess:
    """The mean and deviation that a timm model was made for.

    Its images stay at the side at which they were packed, and as they were brought to it: a model that wants them
    larger resizes them itself, its own way.
    """
    require_name(name)
    own: Any = timm.get_pretrained_cfg(name)
    return replace(fitted, mean=tuple(own.mean), std=tuple(own.std))


def _create(name: str, num_classes: int, side: int, *, native: bool, drop: float, drop_path: float) -> nn.Module:
    options: dict[str, Any] = {"num_classes": num_classes, "drop_rate": drop}
    if drop_path:
        options["drop_path_rate"] = drop_path
    net = timm.create_model(name, **options)
    if not _has_patches(net):
        return net
    # Position embeddings are made for a grid: transformers must know the side, and small images want small patches.
    options["img_size"] = side
    if native:
        options["patch_size"] = next((p for p in (4, 3, 2) if side % p == 0 and side // p >= SMALL_GRID), 1)
    try:
        return timm.create_model(name, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"model.fit: expected a fit that timm:{name} knows, received {'native' if native else 'upsample'!r} at "
            f"{side} pixels ({one_line(error, limit=120)}); try fit = 'upsample'"
        ) from None


def _has_patches(net: nn.Module) -> bool:
    """Whether it is a transformer that cuts images into patches and learns their places."""
    return hasattr(net, "patch_embed") and getattr(net, "pos_embed", None) is not None


def fit_to_small(net: nn.Module, *, loaded: bool) -> tuple[str, ...]:
    """Take back the first fourfold reduction of a network, in place; returns what was done, a sentence each change.

    Strides become 1 and pooling goes. Filters of the first layer that are larger than 3×3, or patches, become 3×3: if
    they were `loaded`, resampled (as patches are in FlexiViT, arXiv:2212.08013), else drawn anew.
    """
    notes = []
    for name, layer in early_reductions(net):
        if not isinstance(layer, nn.Conv2d):
            net.set_submodule(name, nn.Identity())
            notes.append(f"{name}: pooling removed")
        elif layer.in_channels == 3 and max(layer.kernel_size) > KERNEL:
            net.set_submodule(name, _small_stem(layer, loaded=loaded))
            how = "resampled" if loaded else "drawn anew"
            notes.append(f"{name}: filters of {layer.kernel_size[0]}×{layer.kernel_size[1]} {how} as 3×3, stride 1")
        else:
            notes.append(f"{name}: stride {layer.stride[0]} to 1")
            layer.padding, layer.stride = tuple(side // 2 for side in layer.kernel_size), (1, 1)
    return tuple(notes)


def early_reductions(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, layer) of the layers that reduce images, from their full size to a fourth of it."""
    probe = copy.deepcopy(net).to("meta").eval()  # shapes without values: nothing is computed
    found: list[str] = []

    def look(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before, after = inputs[0].shape, output.shape
        if len(before) == len(after) == 4 and after[-1] < before[-1] and PROBE // before[-1] < EARLY:
            found.append(name)

    for name, layer in probe.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) or type(layer).__name__ == "BlurPool2d":
            layer.register_forward_hook(partial(look, name))  # of the probe, which ends here
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
