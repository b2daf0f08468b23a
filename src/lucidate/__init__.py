"""lucidate: train, look inside, audit, compress and serve image classifiers.

Importing this loads no torch; each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AugmentRecipe": "lucidate.core.recipe",
    "DataRecipe": "lucidate.core.recipe",
    "History": "lucidate.core.records",
    "LucidateError": "lucidate.core.errors",
    "ModelRecipe": "lucidate.core.recipe",
    "Predictions": "lucidate.core.records",
    "Recipe": "lucidate.core.recipe",
    "Run": "lucidate.api",
    "RunCard": "lucidate.core.records",
    "TrainRecipe": "lucidate.core.recipe",
    "analyze": "lucidate.api",
    "dataset": "lucidate.api",
    "ensemble": "lucidate.api",
    "gallery": "lucidate.api",
    "levels": "lucidate.api",
    "load": "lucidate.api",
    "load_recipe": "lucidate.core.recipe",
    "train": "lucidate.api",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lucidate' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
