"""Findings → figures, a site and a report."""
