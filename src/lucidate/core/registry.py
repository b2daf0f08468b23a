"""Names that recipes use: of registered functions, and of models that no registry holds."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from lucidate.core.errors import UnknownNameError

ENSEMBLE = "ensemble"  # a model whose options are other models; `lucidate ensemble` makes it
ONNX = "onnx"  # a graph in a file that somebody made
KERAS = "keras"  # a .keras file, likewise
EXTERNAL = (ONNX, KERAS)
MODEL_FILES = (".onnx", ".keras", ".toml")  # what may stand where a run is asked for
TIMM = "timm:"  # before the names of timm's models

F = TypeVar("F", bound=Callable[..., Any])


class Registry(dict[str, F]):
    """A dictionary of functions that refuses duplicates, explains what it does not hold, and lists names in order.

    >>> shapes: Registry[Callable[[], int]] = Registry("shape")
    >>> @shapes.register("square")
    ... def square() -> int:
    ...     return 4
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[F], F]:
        """Decorator that files a function under `name`. Raises ValueError when the name is taken."""

        def file(function: F) -> F:
            if name in self:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self[name] = function
            return function

        return file

    def __missing__(self, name: str) -> F:
        raise UnknownNameError(f"{self.kind}: expected {choices(name, self)}, received {name!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))

    def options(self, name: str) -> dict[str, Any]:
        """Keyword-only parameters of the function and their defaults: what a recipe may set."""
        return keyword_options(self[name])


def keyword_options(function: Callable[..., Any]) -> dict[str, Any]:
    """A function's keyword-only parameters and their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def choices(received: str, known: Iterable[str]) -> str:
    """The known names as words for an error, with the closest match first."""
    names = list(known)
    close = difflib.get_close_matches(received, names, n=1)
    listed = f"one of {', '.join(names)}"
    return f"{listed} (did you mean {close[0]!r}?)" if close else listed
