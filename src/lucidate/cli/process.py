"""This process: what makes torch faster on a processor, what keeps a server small, and how it is asked to stop.

Figures: bench/LOG.md.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lucidate.core.machine import processes

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


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """For work that is saved step by step: a function that says whether Ctrl-C or SIGTERM has asked it to stop.

    Asked twice, it stops at once; not so under torchrun, which passes signals on to processes that have them.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and processes()[1] == 1:
            signal.default_int_handler(number, frame)
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
