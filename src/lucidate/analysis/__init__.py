"""Predictions → findings, in plain numpy."""
