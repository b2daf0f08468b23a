"""Numbers as the sentences of findings say them."""

from __future__ import annotations


def percent(share: float) -> str:
    """A share of 1 as a percentage with one decimal: 0.612 → "61.2 %"."""
    return f"{100 * share:.1f} %"


def interval(low: float, high: float) -> str:
    """A 95 % interval of shares: "95 % CI 58.1–64.2 %"."""
    return f"95 % CI {100 * low:.1f}–{100 * high:.1f} %"


def count(number: int, noun: str = "") -> str:
    """A number with separators, and its noun in the plural where it needs one: "1,000 images"."""
    plural = "" if number == 1 or not noun else "s"
    return f"{number:,} {noun}{plural}".strip()
