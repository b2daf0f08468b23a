"""Reading a packed store that may be larger than memory."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

LARGE = 512 * 2**20  # bytes; smaller stores may stay in memory as a whole


def read_rows(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A copy of some rows of a store (N, S, S, 3). The process does not keep a large store's pages.

    They count as its memory for as long as they are mapped, though the system has them cached either way.
    """
    chosen: NDArray[np.uint8] = images[rows]
    mapped = getattr(images, "_mmap", None)  # of a numpy.memmap, which has no public name for it
    if images.nbytes > LARGE and mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    return chosen
