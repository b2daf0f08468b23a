"""Rooms that can be called: `lucidate.train` is a package, and `lucidate.train("fast")` trains."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A package that stands for the function of its name in `lucidate.api`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        function = getattr(import_module("lucidate.api"), self.__name__.rpartition(".")[2])
        return function(*arguments, **options)


def make_callable(room: str) -> None:
    """Let a package be called as the public function of the same name. room: the package's `__name__`."""
    sys.modules[room].__class__ = _Room
