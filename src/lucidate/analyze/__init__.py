"""Findings from predictions: arrays in, frozen records out. No torch, no drawing."""

from lucidate.analyze.findings import Findings, Images, analyze

__all__ = ["Findings", "Images", "analyze"]
