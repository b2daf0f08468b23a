"""Numbers as the sentences of findings say them."""

from __future__ import annotations

NAMED = 3  # classes that a sentence names of many


def percent(share: float) -> str:
    """A share of 1 as a percentage with one decimal: 0.612 → "61.2 %".

    Only all is "100.0 %" and only none is "0.0 %": beside an error, 0.9996 must not read as if there were none.
    """
    rounded = round(100 * share, 1)
    if 0 < share < 1:
        rounded = min(max(rounded, 0.1), 99.9)
    return f"{rounded:.1f} %"


def span(low: float, high: float) -> str:
    """An interval of shares: "58.1–64.2 %"."""
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def interval(low: float, high: float) -> str:
    """A 95 % interval of shares in a sentence: "95 % CI 58.1–64.2 %"."""
    return f"95 % CI {span(low, high)}"


def count(number: int, noun: str = "") -> str:
    """A number with separators, and its noun in the plural where it needs one: "1,000 images"."""
    plural = "" if number == 1 or not noun else "s"
    return f"{number:,} {noun}{plural}".strip()


def images(number: int, split: str) -> str:
    """So many images of a split: "179 test images"; of "all", plainly "1,797 images"."""
    return count(number, "image" if split == "all" else f"{split} image")


def images_of(split: str) -> str:
    """The images of a split, unnumbered: "test images"; of "all", plainly "images"."""
    return "images" if split == "all" else f"{split} images"


def among(number: int, group: str) -> str:
    """The size of a group of images or predictions in a sentence: "the only …", "both …", "all 5 …"."""
    return {1: f"the only {group}", 2: f"both {group}s"}.get(number, f"all {number:,} {group}s")


def listed(names: list[str]) -> str:
    """Names in a sentence: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def without_images(names: list[str], split: str) -> str:
    """Says of which classes a split has no image: " There are no test images of frog."; nothing where there is none."""
    if not names:
        return ""
    shown = names if len(names) <= NAMED + 1 else [*names[:NAMED], f"{len(names) - NAMED:,} more classes"]
    return f" There are no {images_of(split)} of {listed(shown)}."


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign: 0.012 → "+1.2 points"."""
    return f"{signed_points(difference)} points"


def points_interval(low: float, high: float) -> str:
    """A 95 % interval of a difference of shares: "95 % CI +0.6 to +1.8 points"."""
    return f"95 % CI {signed_points(low)} to {signed_points(high)} points"


def signed_points(difference: float) -> str:
    """The number of `points` alone: 0.012 → "+1.2"; "0.0" has no sign."""
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def p_value(p: float) -> str:
    """The p of a test: "p = 0.031", "p = 0.0004", "p < 0.0001"."""
    if p < 1e-4:
        return "p < 0.0001"
    return f"p = {p:.3f}" if p >= 0.001 else f"p = {p:.1g}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: "42 s", "6.0 min", "2.3 h"; None: "unknown time"."""
    if seconds is None:
        return "unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
