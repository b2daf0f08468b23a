"""Do two models that answered the same images differ? A test, and an interval of the difference."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from lucidate.analysis.intervals import Z_95

LEVEL = 0.05  # p from which on a difference is called one that chance can make


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p: how likely flips as one-sided as these are if neither model is better, 0 to 1.

    only_first, only_second: images that only the first model, and only the second, gets right. Images on which both
    are right or both wrong tell nothing; where there are no others, p is 1.
    Raises ValueError for negative counts. Source: Q. McNemar, Psychometrika 12 (1947), p. 153; in its exact form, a
    binomial test of the flips: A. Agresti, Categorical Data Analysis (3rd ed., 2013), section 11.1.

    >>> p = mcnemar(12, 31)
    """
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
