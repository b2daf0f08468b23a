"""Models by name, and their weights. Importing this registers every model."""

from lucidate.models import compact as _compact  # noqa: F401  (registers)
from lucidate.models import fastnet as _fastnet  # noqa: F401
from lucidate.models.checkpoint import load_model, load_weights, save_weights
from lucidate.models.registry import build, check, models, parameter_count, place, register, value_count

__all__ = [
    "build",
    "check",
    "load_model",
    "load_weights",
    "models",
    "parameter_count",
    "place",
    "register",
    "save_weights",
    "value_count",
]
