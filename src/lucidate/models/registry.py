"""Models by name. A model is a function `(num_classes, *, options) -> nn.Module` whose output is logits (B, K)."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import torch
from torch import nn

from lucidate.core.errors import RecipeError
from lucidate.core.recipe import ModelRecipe
from lucidate.core.registry import Registry, choices

models: Registry[Callable[..., nn.Module]] = Registry("model")
register = models.register


def build(recipe: ModelRecipe, num_classes: int) -> nn.Module:
    """A new model with fresh weights from torch's current generator.

    Raises UnknownNameError for a name, RecipeError for an option, that does not exist or does not fit.
    """
    function = models[recipe.name]
    known = models.options(recipe.name)
    hints = get_type_hints(function)
    options: dict[str, Any] = {}
    for name, value in recipe.options.items():
        if name not in known:
            raise RecipeError(f"model: unknown option {name!r}; expected {choices(name, list(known))}")
        if isinstance(value, list):  # TOML's arrays; the functions take tuples
            value = tuple(value)
        _check(f"model.{name}", value, hints[name])
        options[name] = value
    return function(num_classes, **options)


def check(recipe: ModelRecipe, *, image_size: int = 32) -> None:
    """Raise what building this model and showing it images of `image_size` pixels would raise; makes no weights.

    Raises RecipeError, UnknownNameError.
    """
    with torch.device("meta"):  # shapes without values
        model = build(recipe, 2).eval()
        try:
            model(torch.empty(2, 3, image_size, image_size))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            raise RecipeError(
                f"model: expected options that suit images of {image_size} pixels, received {recipe.name} with "
                f"{recipe.options or 'its defaults'}: {reason}; set data.image_size or other options"
            ) from None


def _check(name: str, value: object, hint: Any) -> None:
    """Refuse a value whose type is not the hint's: int, float, bool, str, or tuple[one of them, ...]."""
    items = value if isinstance(value, tuple) else (value,)
    is_tuple = getattr(hint, "__origin__", None) is tuple
    allowed = get_args(hint)[0] if is_tuple else hint
    accepted: tuple[type, ...] = (int, float) if allowed is float else (allowed,)
    if isinstance(allowed, types.UnionType):
        accepted = get_args(allowed)
    right = is_tuple == isinstance(value, tuple) and len(items) > 0
    if not right or not all(isinstance(item, accepted) and (bool in accepted or item is not True) for item in items):
        what = f"a list of {allowed.__name__}" if is_tuple else getattr(allowed, "__name__", str(allowed))
        raise RecipeError(f"{name}: expected {what}, received {list(items) if isinstance(value, tuple) else value!r}")


def place(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Move a model to a device, its filters in channels_last, the order in which batches come. In place."""
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def value_count(model: nn.Module) -> int:
    """Parameters and BatchNorm statistics: what Keras calls the total of a model."""
    buffers = sum(b.numel() for name, b in model.named_buffers() if not name.endswith("num_batches_tracked"))
    return sum(p.numel() for p in model.parameters()) + buffers
