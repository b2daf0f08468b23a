"""How sure a share is."""

from __future__ import annotations

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
