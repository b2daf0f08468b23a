"""Recipes and images → trained runs."""

from lucidate.train.fit import default_device, fit

__all__ = ["default_device", "fit"]
