"""Recipes and images → trained runs."""

from lucidate.core.rooms import make_callable
from lucidate.train.fit import default_device, fit

__all__ = ["default_device", "fit"]

make_callable(__name__)
