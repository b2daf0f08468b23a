"""Recipes and images → trained runs."""

from lucidate.core.rooms import make_callable
from lucidate.train.fit import fit

__all__ = ["fit"]

make_callable(__name__)
