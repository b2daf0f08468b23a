"""Models by name, and their weights. Importing this registers every model."""

from lucidate.models import compact as _compact  # noqa: F401  (registers)
from lucidate.models.checkpoint import load_model, load_weights, save_weights
from lucidate.models.registry import build, models, parameter_count, register, value_count

__all__ = [
    "build",
    "load_model",
    "load_weights",
    "models",
    "parameter_count",
    "register",
    "save_weights",
    "value_count",
]
