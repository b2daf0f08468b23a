"""Several runs as one: ways of combining their answers, and how much that brings."""

from lucidate.core.rooms import make_callable
from lucidate.ensemble.combine import METHODS, Combined, Method, align, combine
from lucidate.ensemble.gain import EnsembleGain, ensemble_gain
from lucidate.ensemble.of_runs import ensemble_runs

__all__ = ["METHODS", "Combined", "EnsembleGain", "Method", "align", "combine", "ensemble_gain", "ensemble_runs"]

make_callable(__name__)
