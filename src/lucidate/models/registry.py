"""Models by name, and what a model's class may bring beyond its answers.

A model is a function `(num_classes, *, options) -> nn.Module` whose output is logits (B, K); its first line says what
`lucidate models` shows. Whoever uses one of the abilities below asks for the protocol, not for a network by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, get_type_hints, runtime_checkable

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from lucidate.core.errors import RecipeError
from lucidate.core.registry import Registry

models: Registry[Callable[..., nn.Module]] = Registry("model")
register = models.register
M = TypeVar("M", bound=BaseModel)


@runtime_checkable
class Preparable(Protocol):
    """A model that looks at training images before it is trained."""

    def prepare(self, images: Tensor) -> None:
        """images: (N, 3, S, S), normalized; about 5,000 of 32 pixels a side, fewer larger ones."""

    def freeze_input(self, frozen: bool) -> None:
        """Whether what it learns of its input layer stays as it is from now on."""


@runtime_checkable
class Resizing(Protocol):
    """A model that brings images to a side of its own, in pixels."""

    size: int


@runtime_checkable
class Foldable(Protocol):
    """A part of a model whose normalizations can be taken into its convolutions, where converters do not see it."""

    def fold(self) -> None:
        """In place, for evaluation; the answers stay the same."""


@runtime_checkable
class ToKeras(Protocol):
    """A model that Keras's stock layers can express."""

    def to_keras(self, layers: Any, value: Any) -> Any:
        """Keras's value of normalized images → that of the logits. layers: an `export.keras.KerasLayers`."""


def with_keras() -> list[str]:
    """Names of the models that are `ToKeras`."""
    return [name for name in models if hasattr(get_type_hints(models[name])["return"], "to_keras")]


def written_options(kind: type[M], options: Mapping[str, Any], *, what: str, way_on: str = "") -> M:
    """What stands under `[model]` where lucidate wrote it itself. Raises RecipeError: `what` was expected."""
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RecipeError(f"model.{key}: expected {what} ({first['msg']}){way_on}") from None
