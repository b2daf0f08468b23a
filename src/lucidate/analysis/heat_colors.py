"""How much is which color, in every heatmap of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# From almost nothing to much: dark violet over red to yellow, lighter at every step, so that it reads in gray as well.
RAMP = np.array([[24, 15, 62], [114, 31, 129], [205, 64, 91], [251, 135, 97], [252, 253, 191]], dtype=np.float64)


def heat_colors(heatmap: NDArray[Any]) -> NDArray[np.float64]:
    """(H, W, 3) RGB, 0 to 255, of a heatmap (H, W) in [0, 1]; what is outside counts as the nearer end."""
    place = np.clip(heatmap.astype(np.float64), 0, 1) * (len(RAMP) - 1)
    below = np.minimum(place.astype(np.int64), len(RAMP) - 2)
    share = (place - below)[..., None]
    return (1 - share) * RAMP[below] + share * RAMP[below + 1]
