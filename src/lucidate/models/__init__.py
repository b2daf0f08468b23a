"""Models by name, and their weights; each imported when first used: a server of graphs needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lucidate.models.checkpoint import load_model, load_weights, save_weights
    from lucidate.models.fastnet import hold_input
    from lucidate.models.registry import (
        backbone,
        begins_with_weights,
        build,
        check,
        default_device,
        models,
        parameter_count,
        place,
        preprocess_for,
        register,
        require_weights,
        value_count,
    )

__all__ = [
    "backbone",
    "begins_with_weights",
    "build",
    "check",
    "default_device",
    "hold_input",
    "load_model",
    "load_weights",
    "models",
    "parameter_count",
    "place",
    "preprocess_for",
    "register",
    "require_weights",
    "save_weights",
    "value_count",
]

_HOME = {
    "hold_input": "fastnet",
    "load_model": "checkpoint",
    "load_weights": "checkpoint",
    "save_weights": "checkpoint",
}
REGISTERING = ("compact", "fastnet")  # files whose import registers a model


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lucidate.models' has no attribute {name!r}")
    for file in REGISTERING:
        import_module(f"lucidate.models.{file}")
    return getattr(import_module(f"lucidate.models.{_HOME.get(name, 'registry')}"), name)
