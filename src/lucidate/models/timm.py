"""Any model of timm, as `timm:NAME`: its head for our classes, its preprocessing, its weights, fitted to small images.

timm takes seconds to import: this file is imported when such a model is named.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any, Protocol, cast

from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import RecipeError, UnknownNameError
from lucidate.core.registry import TIMM
from lucidate.core.text import one_line
from lucidate.data.preprocess import Preprocess
from lucidate.models.operators import declare_missing_operators
from lucidate.models.pretrained import find_weights, load_into
from lucidate.models.stems import fit_to_small

declare_missing_operators()
import timm  # noqa: E402  (it imports torchvision)

SMALL_GRID = 4  # tokens a side that a vision transformer should at least see


class Zoo(nn.Module):
    """A timm model. Takes (B, 3, S, S) float32, normalized; gives logits (B, K).

    net: timm's own model. size: pixels a side to which images are resized first, on the device; None: they are not.
    notes: what its weights went through to get here, a sentence each.
    """

    def __init__(self, net: nn.Module, *, size: int | None, interpolation: str, notes: tuple[str, ...]) -> None:
        super().__init__()
        self.net = net
        self.size = size
        self.interpolation = interpolation
        self.notes = notes

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(self.resized(images))
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """What the head sees: (B, D)."""
        net = cast("_Timm", self.net)
        return net.forward_head(net.forward_features(self.resized(images)), pre_logits=True)

    @property
    def head(self) -> nn.Linear:
        """The last layer, embeddings → logits. Raises RecipeError where it is not a dense one."""
        head = cast("_Timm", self.net).get_classifier()
        if not isinstance(head, nn.Linear):
            raise RecipeError(f"model: expected one that ends in a dense layer, received a {type(head).__name__}")
        return head

    def resized(self, images: Tensor) -> Tensor:
        """The images at the side that the model asks for."""
        if self.size is None or images.shape[-1] == self.size:
            return images
        smaller = self.size < images.shape[-1]
        size = (self.size, self.size)
        return functional.interpolate(images, size, mode=self.interpolation, align_corners=False, antialias=smaller)


class _Timm(Protocol):
    """What timm's models have in common, for the type checker."""

    def forward_features(self, images: Tensor) -> Tensor: ...
    def forward_head(self, features: Tensor, pre_logits: bool) -> Tensor: ...
    def get_classifier(self) -> nn.Module: ...


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

    pretrained: begin with the weights that timm names on the hub. weights: begin with those of a safetensors file in
    timm's format. initial: False where weights follow anyway, and none are fetched. fit: "native" rebuilds the stem so
    that small images keep their resolution (a fourth of the usual reduction); "upsample" resizes them to `size`, by
    default the model's own. drop, drop_path: rates of dropout before the head and of stochastic depth.

    Raises RecipeError for options, WeightsError for weights.
    """
    if fit not in ("native", "upsample"):
        raise RecipeError(f"model.fit: expected 'native' or 'upsample', received {fit!r}")
    if size is not None and (fit == "native" or size < 1):
        raise RecipeError(f"model.size: expected pixels, with fit = 'upsample', received {size} with fit = {fit!r}")
    own: Any = timm.get_pretrained_cfg(name)
    path = find_weights(name, pretrained=pretrained, weights=weights) if initial else None
    side = (size or own.input_size[-1]) if fit == "upsample" else image_size
    net = _create(name, num_classes, side, native=fit == "native", drop=drop, drop_path=drop_path)
    notes = load_into(net, path) if path else ()
    if fit == "native" and not _has_patches(net):
        notes += fit_to_small(net, loaded=path is not None)
    mode = own.interpolation if own.interpolation in ("bilinear", "bicubic") else "bicubic"
    return Zoo(net, size=side if fit == "upsample" else None, interpolation=mode, notes=notes)


def require_name(name: str) -> None:
    """Raise UnknownNameError, with names that are close, where timm has no such model."""
    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture) and (not tag or name in timm.list_pretrained(f"{architecture}.*")):
        return
    known = timm.list_pretrained(f"{architecture}.*") if timm.is_model(architecture) else timm.list_models()
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
