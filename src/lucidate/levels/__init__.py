"""The levels of the challenge as a product: transfer, regularization, a custom network, an ensemble, each measured."""

from lucidate.core.rooms import make_callable
from lucidate.levels.plan import LevelsRecipe, Plan, make_plan
from lucidate.levels.run import LevelsResult, run_levels

__all__ = ["LevelsRecipe", "LevelsResult", "Plan", "make_plan", "run_levels"]

make_callable(__name__)
