"""A recipe's `[model]` → a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_origin, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from lucidate.core.errors import RecipeError
from lucidate.core.recipe import ModelRecipe
from lucidate.core.registry import ENSEMBLE, EXTERNAL, TIMM, choices, keyword_options
from lucidate.core.text import one_line
from lucidate.data.preprocess import Preprocess
from lucidate.models import compact, fastnet  # noqa: F401  registers them
from lucidate.models.registry import Resizing, models


def build(recipe: ModelRecipe, num_classes: int, *, image_size: int = 32, initial: bool = True) -> nn.Module:
    """A new model with fresh weights from torch's current generator, or the ones that the recipe begins with.

    image_size: pixels a side of the images it will see; some of timm's are made for one. initial: False where other
    weights follow, so that none are fetched.
    Raises UnknownNameError for a name, RecipeError for an option, that does not exist or does not fit; WeightsError.
    """
    function: Callable[..., nn.Module]
    arguments: tuple[Any, ...]
    if recipe.name == ENSEMBLE:
        from lucidate.models.ensemble import build_ensemble

        return build_ensemble(recipe.options, num_classes, build=build)
    if recipe.name in EXTERNAL:
        from lucidate.models.external import build_external

        return build_external(recipe.name, recipe.options, num_classes)
    if name := timm_name(recipe):
        from lucidate.models.timm import require_name, timm_model  # takes seconds

        require_name(name)  # before options, which may be those of the model that stood there before
        function, arguments = timm_model, (name, num_classes, image_size, initial)
    else:
        function, arguments = models[recipe.name], (num_classes,)
    known = keyword_options(function)
    hints = get_type_hints(function)
    options: dict[str, Any] = {}
    for name, value in recipe.options.items():
        if name not in known:
            raise RecipeError(f"model: unknown option {name!r}; expected {choices(name, list(known))}")
        if isinstance(value, list):  # TOML's arrays; the functions take tuples
            value = tuple(value)
        _check(f"model.{name}", value, hints[name])
        options[name] = value
    return function(*arguments, **options)


def check(recipe: ModelRecipe, *, image_size: int = 32, start_size: int | None = None) -> None:
    """Raise RecipeError or UnknownNameError where building a model, or showing it images, would; makes no weights.

    start_size: side in pixels to which the model is to resize its images at first, where it is to.
    """
    with torch.device("meta"):  # shapes without values
        model = build(recipe, 2, image_size=image_size, initial=False).eval()
        try:
            model(torch.empty(2, 3, image_size, image_size))
        except RuntimeError as error:
            reason = one_line(error, limit=120)
            raise RecipeError(
                f"model: expected options that suit images of {image_size} pixels, received {recipe.name} with "
                f"{recipe.options or 'its defaults'}: {reason}; set data.image_size or other options"
            ) from None
        if start_size is None:
            return
        own = getattr(model, "size", None)
        if own is None or not isinstance(model, Resizing):
            raise RecipeError(
                "train.start_size: expected a model that resizes its images, as timm's with model.fit = 'upsample' do, "
                f"received {recipe.name}"
            )
        model.size = start_size
        try:
            model(torch.empty(2, 3, image_size, image_size))
        except (RuntimeError, AssertionError):
            raise RecipeError(
                f"train.start_size: expected a model that takes images of {start_size} pixels as well as of {own}, "
                f"received {recipe.name}; set model.size and train.start_size to the same number"
            ) from None


def timm_name(recipe: ModelRecipe) -> str:
    """What timm calls the model of "timm:NAME"; "" for a model of our own."""
    return recipe.name.removeprefix(TIMM) if recipe.name.startswith(TIMM) else ""


def preprocess_for(recipe: ModelRecipe, fitted: Preprocess) -> Preprocess:
    """The preprocessing of a model: its own where it brings one, else what was `fitted` to the training images."""
    if name := timm_name(recipe):
        from lucidate.models.timm import own_preprocess

        return own_preprocess(name, fitted)
    return fitted


def begins_with_weights(recipe: ModelRecipe) -> bool:
    """Whether training begins with somebody's weights rather than from scratch."""
    return bool(timm_name(recipe)) and bool(recipe.options.get("pretrained") or recipe.options.get("weights"))


def backbone(model: nn.Module) -> tuple[nn.Module | None, str]:
    """timm's own model inside ours and the prefix of its values' names; (None, "") for a model of another kind."""
    net = getattr(model, "net", None)
    return (net, "net.") if hasattr(net, "forward_head") else (None, "")


def require_weights(recipe: ModelRecipe) -> None:
    """Fetch, or find, the weights that a recipe begins with, before anything else is done. Raises WeightsError."""
    if name := timm_name(recipe):
        from lucidate.models.pretrained import find_weights
        from lucidate.models.timm import require_name

        require_name(name)
        options = recipe.options
        find_weights(name, pretrained=bool(options.get("pretrained")), weights=options.get("weights"))


def _check(name: str, value: object, hint: Any) -> None:
    """Refuse a value whose type is not the hint's: int, float, bool, str, or tuple[one of them, ...]."""
    try:
        if TypeAdapter(hint).validate_python(value, strict=True) != ():
            return
    except ValidationError:
        pass
    is_tuple = get_origin(hint) is tuple
    allowed = get_args(hint)[0] if is_tuple else hint
    what = f"a list of {allowed.__name__}" if is_tuple else getattr(allowed, "__name__", str(allowed))
    raise RecipeError(f"{name}: expected {what}, received {list(value) if isinstance(value, tuple) else value!r}")


def default_device() -> torch.device:
    """The first GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Move a model to a device, its filters in channels_last, the order in which batches come. In place."""
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def value_count(model: nn.Module) -> int:
    """Parameters and BatchNorm statistics: what Keras calls the total of a model; of a file from elsewhere, none."""
    kept = [
        b for name, b in model.named_buffers() if not name.endswith("num_batches_tracked") and b.dtype != torch.uint8
    ]
    return sum(value.numel() for value in (*model.parameters(), *kept))
