"""A heatmap as colors, and laid over its image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# From almost nothing to much: dark violet over red to yellow, lighter at every step, so that it reads in gray as well.
RAMP = np.array([[24, 15, 62], [114, 31, 129], [205, 64, 91], [251, 135, 97], [252, 253, 191]], dtype=np.float64)
STRENGTH = 0.65  # of the color where a map is highest; the image stays to be seen


def colors(heatmap: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a heatmap (H, W) in [0, 1]."""
    place = np.clip(heatmap, 0, 1) * (len(RAMP) - 1)
    below = np.minimum(place.astype(np.int64), len(RAMP) - 2)
    share = (place - below)[..., None]
    return np.rint((1 - share) * RAMP[below] + share * RAMP[below + 1]).astype(np.uint8)


def overlay(image: NDArray[np.uint8], heatmap: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with a heatmap (H, W) in [0, 1] over it: where that is 0, the image is as it was.

    An empty map leaves the image untouched: it is not stretched to say something.
    """
    weight = STRENGTH * np.clip(heatmap, 0, 1)[..., None]
    return np.rint((1 - weight) * image + weight * colors(heatmap)).astype(np.uint8)
