"""How the server has been doing for the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np

SECONDS = 60
KEPT = 4096  # latencies, the newest


class Recent:
    """Requests for predictions of the last minute: a count for each second, and the newest latencies.

    clock: seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._counts: deque[list[int]] = deque(maxlen=SECONDS + 1)  # [second, requests]
        self._latencies: deque[tuple[float, float]] = deque(maxlen=KEPT)  # (when, seconds)

    def add(self, seconds: float) -> None:
        """Note one request that was answered, and how long it took."""
        now = self._clock()
        second = int(now)
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1][1] += 1
        else:
            self._counts.append([second, 1])
        self._latencies.append((now, seconds))

    def report(self) -> dict[str, Any]:
        """requests_per_second, over a minute or the time since the start; latency_ms: p50 and p99, None without any."""
        now = self._clock()
        since = now - SECONDS
        count = sum(number for second, number in self._counts if second >= since)
        span = min(float(SECONDS), max(1.0, now - self._begun))
        latencies = [seconds for when, seconds in self._latencies if when >= since]
        p50, p99 = (np.percentile(latencies, (50, 99)) * 1000).tolist() if latencies else (None, None)
        return {"requests_per_second": count / span, "latency_ms": {"p50": p50, "p99": p99}}
