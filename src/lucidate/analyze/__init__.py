"""Findings from predictions: arrays in, frozen records out. No torch, no drawing."""

from lucidate.analyze.findings import Findings, Images, analyze
from lucidate.core.rooms import make_callable

__all__ = ["Findings", "Images", "analyze"]

make_callable(__name__)
