"""Time spent predicting, without what comes before: finding images, packing them, loading weights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds, added up over everything that ran under it."""

    def __init__(self) -> None:
        self._seconds, self._start = 0.0, 0.0
        self._runs = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside."""
        self._start, self._runs = time.perf_counter(), True
        try:
            yield
        finally:
            self._seconds, self._runs = self.seconds, False

    @property
    def seconds(self) -> float:
        """Counted so far, also while it runs."""
        return self._seconds + (time.perf_counter() - self._start if self._runs else 0.0)

    def rate(self, images: int) -> float:
        """Images a second, if so many were done."""
        return images / max(self.seconds, 1e-9)
