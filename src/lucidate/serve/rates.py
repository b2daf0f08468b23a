"""How often somebody may ask: a bucket of tokens for each, refilled at a steady rate."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

KNOWN = 10_000  # askers that are remembered, so that many addresses do not take the memory


class Rates:
    """per_second: requests that each asker may make, on average. burst: at once, after a rest.

    clock: seconds that never run backwards, as those of the day may.
    """

    def __init__(self, *, per_second: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._rate = per_second
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # asker → tokens, and when there were as many

    def wait(self, asker: str) -> float:
        """Take a token: 0, or, where there is none, the seconds until there is."""
        now = self._clock()
        tokens, then = self._buckets.pop(asker, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[asker] = (tokens - 1 if tokens >= 1 else tokens, now)  # the end of the dict: heard of last
        if len(self._buckets) > KNOWN:
            del self._buckets[next(iter(self._buckets))]
        return wait
