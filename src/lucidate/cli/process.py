"""Settings of this process: what makes torch faster on a processor, what keeps a server small.

Figures: bench/LOG.md.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names and numbers of glibc's mallopt(3)
KEPT = 1 << 30  # bytes, by a process that trains
KEPT_BY_SERVER = 4 << 20  # by each of a server's threads


def tune_process() -> None:
    """Tune threads and memory; before torch is loaded, which reads the first once. Does nothing where it cannot."""
    # Torch's threads spin while they wait for each other; on shared cores two runs then slow each other down fourfold.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Without it, products on CUDA may be summed in another order each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # glibc gives large blocks back to the system at once, and the next batch's activations fault them in again.
    _keep(KEPT)


def tune_server() -> None:
    """Give back what large requests took: after a burst of them a server is as small as before."""
    _keep(KEPT_BY_SERVER)


def _keep(size: int) -> None:
    """Let glibc take blocks from this many bytes on from the system, and keep no more than that of what is free."""
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except (OSError, AttributeError):  # another C library
            return
        mallopt(M_MMAP_THRESHOLD, size)
        mallopt(M_TRIM_THRESHOLD, size)
