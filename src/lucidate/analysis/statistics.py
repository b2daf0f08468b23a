"""Intervals and tests: of one share, of two models on the same images, and of repeated trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z_95 = 1.959963984540054  # 97.5th percentile of the standard normal distribution


def wilson_interval(
    successes: ArrayLike, totals: ArrayLike, *, z: float = Z_95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval of a share: lower and upper ends, in [0, 1]; (0, 1) where the total is 0.

    successes, totals: counts of any one shape. Source: E. B. Wilson, JASA 22 (1927), p. 209.

    >>> low, high = wilson_interval(8, 10)
    """
    n = np.asarray(totals, dtype=np.float64)
    safe = np.maximum(n, 1)
    share = np.asarray(successes, dtype=np.float64) / safe
    center = (share + z**2 / (2 * safe)) / (1 + z**2 / safe)
    half = z / (1 + z**2 / safe) * np.sqrt(share * (1 - share) / safe + z**2 / (4 * safe**2))
    low = np.where(n > 0, np.clip(center - half, 0, 1), 0.0)
    high = np.where(n > 0, np.clip(center + half, 0, 1), 1.0)
    return low, high


def share_interval(share: float, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of one share of so many images."""
    low, high = wilson_interval(round(share * total), total)
    return float(low), float(high)


def shares(counts: NDArray[np.int64], totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts of as many, NaN where there are none; of shapes that broadcast."""
    return np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)


LEVEL = 0.05  # p from which on a difference is called one that chance can make


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p: how likely flips as one-sided as these are if neither model is better, 0 to 1.

    only_first, only_second: images that only the first model, and only the second, gets right. Images on which both
    are right or both wrong tell nothing; where there are no others, p is 1.
    Raises ValueError for negative counts. Source: Q. McNemar, Psychometrika 12 (1947), p. 153; in its exact form, a
    binomial test of the flips: A. Agresti, Categorical Data Analysis (3rd ed., 2013), section 11.1.

    >>> p = mcnemar(12, 31)
    """
    from scipy.stats import binomtest  # takes half a second, which most findings need not wait

    if only_first < 0 or only_second < 0:
        raise ValueError(f"mcnemar: expected counts of images, 0 or more, received {only_first} and {only_second}")
    flips = only_first + only_second
    return float(binomtest(only_first, flips, 0.5).pvalue) if flips else 1.0


def paired_interval(
    only_first: ArrayLike, only_second: ArrayLike, totals: ArrayLike, *, z: float = Z_95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval of the second model's accuracy less the first's on the same images: lower and upper ends, in [-1, 1].

    The adjusted Wald interval: one image is added to each kind of flip, so that it has a width without flips too.
    only_first, only_second, totals: counts of any one shape; (-1, 1) where the total is 0.
    Source: D. G. Bonett and R. M. Price, J. Educational and Behavioral Statistics 37 (2012), p. 479; recommended by
    M. W. Fagerland, S. Lydersen and P. Laake, Statistics in Medicine 33 (2014), p. 2850.

    >>> low, high = paired_interval(12, 31, 1000)
    """
    n = np.asarray(totals, dtype=np.float64)
    first = (np.asarray(only_first, dtype=np.float64) + 1) / (n + 2)
    second = (np.asarray(only_second, dtype=np.float64) + 1) / (n + 2)
    center = second - first
    half = z * np.sqrt((first + second - center**2) / (n + 2))
    low = np.where(n > 0, np.clip(center - half, -1, 1), -1.0)
    high = np.where(n > 0, np.clip(center + half, -1, 1), 1.0)
    return low, high


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
    from scipy.stats import ttest_1samp  # takes half a second, which most findings need not wait

    given = np.asarray(values, dtype=np.float64)
    if not len(given):
        raise ValueError("mean_over_seeds: expected a value a seed, received none")
    mean = float(given.mean())
    if len(given) < 2 or np.ptp(given) < 1e-12:  # differences of shares that are equal in truth differ by rounding
        return Mean(mean, None, None, None)
    found = ttest_1samp(given, 0.0)
    ends = found.confidence_interval(0.95)
    return Mean(mean, float(ends.low), float(ends.high), float(found.pvalue))


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
    from scipy.stats import binom  # takes half a second, which most findings need not wait

    reach = int(np.abs(sums).sum())
    chances = np.ones(1)  # of each total from -reach to reach, in steps of 1
    for size in range(1, int(np.abs(sums).max(initial=0)) + 1):
        count = int((np.abs(sums) == size).sum())
        spread = np.zeros(2 * size * count + 1)
        spread[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, spread)
    totals = np.arange(-reach, reach + 1)
    return float(min(chances[np.abs(totals) >= abs(int(sums.sum()))].sum(), 1.0))
