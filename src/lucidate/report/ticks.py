"""Ticks that read true: whole numbers where there are no halves, and decimals enough to tell neighbors apart."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log10
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import Formatter, MaxNLocator

_STEPS = [1, 2, 5, 10]


def whole_axis(span: float, *, most: int = 6) -> dict[str, Any]:
    """A Plotly axis of counts or epochs over `span` of them; at most `most` steps where it is short.

    Plotly by itself puts ticks at halves of a short one.
    """
    step = next((step for step in (1, 2, 5) if span <= step * most), None)
    place = {"tick0": 0, "dtick": step} if step else {}
    return {"tickformat": ",~f", **place}  # "~f" rather than "d": zoomed in, 0.5 must not read as another 1


def share_axis() -> dict[str, Any]:
    """A Plotly axis of shares as percentages, whose decimals follow the distance of its ticks, zoomed in or out."""
    ends = ((0.000999, ".2%"), (0.00999, ".1%"), (None, ".0%"))
    stops = [{"dtickrange": [None, end], "value": form} for end, form in ends]
    return {"tickformat": ".0%", "tickformatstops": stops}


def whole_ticks(axis: Axis) -> None:
    """Matplotlib's side of `whole_axis`."""
    axis.set_major_locator(MaxNLocator(7, integer=True, steps=_STEPS))
    axis.set_major_formatter("{x:,.0f}")


def share_ticks(axis: Axis) -> None:
    """Matplotlib's side of `share_axis`."""
    axis.set_major_locator(MaxNLocator(7, steps=_STEPS))
    axis.set_major_formatter(_Percentages())


class _Percentages(Formatter):
    """As many decimals as the distance of ticks asks for: 52 %, 53 %; 53.5 %, 54.0 %."""

    def __call__(self, x: float, pos: int | None = None) -> str:  # noqa: ARG002 (Matplotlib's signature)
        return f"{100 * x:.0f}%"

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        step = float(np.diff(values).min()) if len(values) > 1 else 1.0
        decimals = max(0, ceil(-log10(100 * step) - 1e-6))
        return [f"{100 * value:.{decimals}f}%" for value in values]
