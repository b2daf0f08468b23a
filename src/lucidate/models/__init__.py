"""Models by name, and their weights. Importing this registers every model."""

from lucidate.models import compact as _compact  # noqa: F401  (registers)
from lucidate.models.checkpoint import load_model, load_weights, save_weights
from lucidate.models.fastnet import hold_input
from lucidate.models.registry import (
    backbone,
    begins_with_weights,
    build,
    check,
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
