from __future__ import annotations

from collections.abc import Callable

import pytest

from lucidate.core.errors import UnknownNameError
from lucidate.core.registry import Registry


def test_a_registry_names_its_functions_and_their_options() -> None:
    shapes: Registry[Callable[..., int]] = Registry("shape")

    @shapes.register("square")
    def square(side: int, *, filled: bool = True) -> int:
        return side if filled else 0

    assert shapes["square"](3) == 3
    assert list(shapes) == ["square"]
    assert shapes.options("square") == {"filled": True}
    with pytest.raises(ValueError, match="registered twice"):
        shapes.register("square")(square)
    with pytest.raises(UnknownNameError, match="did you mean 'square'"):
        shapes["sqare"]
