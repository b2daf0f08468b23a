"""A heatmap laid over its image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucidate.analysis.heatmaps import heat_colors

STRENGTH = 0.65  # of the color where a map is highest; the image stays to be seen


def overlay(image: NDArray[np.uint8], heatmap: NDArray[Any]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with a heatmap (H, W) in [0, 1] over it: where that is 0, the image is as it was.

    An empty map leaves the image untouched: it is not stretched to say something.
    """
    weight = STRENGTH * np.clip(heatmap, 0, 1)[..., None]
    return np.rint((1 - weight) * image + weight * heat_colors(heatmap)).astype(np.uint8)
