"""Do two ways of training differ, each tried with the same seeds and judged on the same images?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, t

DRAWS = 10_000  # of images, for the ends of an interval to a tenth of its width and better


@dataclass(frozen=True)
class Mean:
    """A mean, its 95 % interval, and the p of its being 0; None where too few values, or equal ones, say nothing."""

    mean: float
    low: float | None
    high: float | None
    p: float | None


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Student's t interval and two-sided test of one value a seed: what other seeds would give, on the same images.

    Of paired differences, it is the paired t test. Source: Student, "The probable error of a mean", Biometrika 6
    (1908), p. 1. Raises ValueError where there is no value.

    >>> mean = mean_over_seeds([0.021, 0.034, 0.027])
    """
    given = np.asarray(values, dtype=np.float64)
    if not len(given):
        raise ValueError("mean_over_seeds: expected a value a seed, received none")
    mean = float(given.mean())
    if len(given) < 2 or np.ptp(given) < 1e-12:  # differences of shares that are equal in truth differ by rounding
        return Mean(mean, None, None, None)
    error = float(given.std(ddof=1) / len(given) ** 0.5)
    half = float(t.ppf(0.975, len(given) - 1)) * error
    return Mean(mean, mean - half, mean + half, float(2 * t.sf(abs(mean) / error, len(given) - 1)))


def mean_over_images(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Mean:
    """Accuracy of the second way less the first's, and what other images would give, of the same models.

    first, second: (S, N), whether each of S seeds' models is right on each of N images; an image's S answers stay
    together. The interval is the bootstrap's (B. Efron, Annals of Statistics 7 (1979), p. 1: 10,000 draws of images,
    percentiles). p is that of the exact sign test that flips each image's sum of differences: with one seed it is
    McNemar's. Raises ValueError for shapes that differ or are empty.

    >>> mean = mean_over_images(np.array([[True, False, False]]), np.array([[True, True, False]]))
    """
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise ValueError(f"mean_over_images: expected two arrays (S, N), received {first.shape} and {second.shape}")
    seeds, images = first.shape
    sums = second.sum(0).astype(np.int64) - first.sum(0)  # -S to S an image
    values, counts = np.unique(sums, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(images, counts / images, size=DRAWS) @ values / (seeds * images)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Mean(float(sums.sum() / first.size), float(low), float(high), sign_flip_p(sums))


def sign_flip_p(sums: NDArray[np.int64]) -> float:
    """How likely a total as far from 0 as that of `sums` (N,) is if each one's sign were a coin's, 0 to 1; exact."""
    reach = int(np.abs(sums).sum())
    chances = np.ones(1)  # of each total from -reach to reach, in steps of 1
    for size in range(1, int(np.abs(sums).max(initial=0)) + 1):
        count = int((np.abs(sums) == size).sum())
        spread = np.zeros(2 * size * count + 1)
        spread[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, spread)
    totals = np.arange(-reach, reach + 1)
    return float(min(chances[np.abs(totals) >= abs(int(sums.sum()))].sum(), 1.0))
