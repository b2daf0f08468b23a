"""Which range of values does an activation take? Measured on images, cut by one of three methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lucidate.core.progress import Reporter, Silent
from lucidate.models.onnx_file import with_outputs
from lucidate.models.onnx_session import open_session

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
BINS = 2048
LEVELS = 255  # steps of 8 bits
KEPT = 0.9999  # share of values that the method "percentile" keeps
CUTS = np.linspace(0, 0.8, 33)  # shares of either end's distance from zero that the method "mse" tries to cut
SAMPLE = 500_000  # values of a tensor that a batch adds to its histogram: enough for its tails


@dataclass(frozen=True, eq=False)
class Histogram:
    """Values of one activation: how many lie in each of `counts` bins of equal width from `low` to `high`."""

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def centers(self) -> NDArray[np.float64]:
        width = (self.high - self.low) / len(self.counts)
        return np.linspace(self.low + width / 2, self.high - width / 2, len(self.counts))


def observe(
    model: Any, tensors: Sequence[str], batches: Sequence[NDArray[np.uint8]], *, reporter: Reporter | None = None
) -> dict[str, Histogram]:
    """Histograms of activations of a graph, over all batches.

    model: an onnx.ModelProto whose only input is the images. batches: (B, S, S, 3) uint8 each.
    """
    reporter = reporter or Silent()
    session, feed = open_session(with_outputs(model, tensors)), model.graph.input[0].name
    lows, highs = dict.fromkeys(tensors, np.inf), dict.fromkeys(tensors, -np.inf)
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    total = 2 * len(batches)
    for step, batch in enumerate(batches):  # the ends first: bins cannot be laid out before
        for name, values in zip(tensors, session.run(tensors, {feed: batch}), strict=True):
            lows[name], highs[name] = min(lows[name], values.min()), max(highs[name], values.max())
        reporter.advance("calibrating", step + 1, total)
    for step, batch in enumerate(batches):
        for name, values in zip(tensors, session.run(tensors, {feed: batch}), strict=True):
            some = values.ravel()[:: max(1, values.size // SAMPLE)]
            scale = BINS / max(highs[name] - lows[name], 1e-12)
            places = ((some - lows[name]) * scale).astype(np.int64).clip(0, BINS - 1)
            counts[name] += np.bincount(places, minlength=BINS)
        reporter.advance("calibrating", len(batches) + step + 1, total)
    return {name: Histogram(float(lows[name]), float(highs[name]), counts[name]) for name in tensors}


def span(seen: Histogram, method: Method) -> tuple[float, float]:
    """(lowest, highest) value that 8 bits shall express; zero is always among them.

    "minmax" keeps all that was seen. "percentile" keeps 99.99 % of it, as many cut off above as below. "mse" cuts
    either end where the expected squared error of rounding and cutting together is smallest.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if method == "minmax" or low == high:
        return low, high
    if method == "percentile":
        below = seen.counts.cumsum() / max(seen.counts.sum(), 1)
        ends = seen.centers[np.searchsorted(below, [(1 - KEPT) / 2, (1 + KEPT) / 2]).clip(0, len(below) - 1)]
        return max(low, min(float(ends[0]), 0.0)), min(high, max(float(ends[1]), 0.0))
    share = seen.counts / max(seen.counts.sum(), 1)

    def cut(end: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends to try, and the squared error of what lies beyond each of them."""
        ends = end * (1 - CUTS)
        beyond = (seen.centers - ends[:, None]) * np.sign(end)
        return ends, (share * np.maximum(beyond, 0) ** 2).sum(1)

    (lows, below_error), (highs, above_error) = cut(low), cut(high)
    rounding = ((highs - lows[:, None]) / LEVELS) ** 2 / 12  # variance of values spread evenly over a step
    best = np.unravel_index((rounding + below_error[:, None] + above_error).argmin(), rounding.shape)
    return float(lows[best[0]]), float(highs[best[1]])
