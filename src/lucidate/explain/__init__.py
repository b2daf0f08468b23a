"""Where a model looks, and whether its heatmaps deserve trust."""

from lucidate.explain.heatmaps import METHODS, Method, heatmaps, layers_for
from lucidate.explain.of_run import TARGETS, Explanation, Target, explain_run
from lucidate.explain.single import Explained, explain_images
from lucidate.explain.trust import Trust, measure_trust

__all__ = [
    "METHODS",
    "TARGETS",
    "Explained",
    "Explanation",
    "Method",
    "Target",
    "Trust",
    "explain_images",
    "explain_run",
    "heatmaps",
    "layers_for",
    "measure_trust",
]
