"""Findings → an interactive gallery."""
