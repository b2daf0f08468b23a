"""Findings → a report to print."""
