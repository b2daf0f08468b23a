"""What every route of the server may see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from lucidate.serve.metrics import Metrics
from lucidate.serve.settings import Settings

if TYPE_CHECKING:
    from lucidate.serve.repository import Repository
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


@dataclass
class Life:
    """How far the server is.

    ready: answers are to be had. draining: it is about to end, and says that it is not ready. closing: it takes no
    connection any more, and gives those it has up with their next answer.
    """

    ready: bool = False
    draining: bool = False
    closing: bool = False


@dataclass(frozen=True)
class State:
    """Stands at `app.state.lucidate`."""

    settings: Settings
    repository: Repository
    metrics: Metrics
    life: Life = field(default_factory=Life)
    recent: Recent = field(default_factory=Recent)


def state_of(request: Request) -> State:
    """The server's state, as a route finds it."""
    state: State = request.app.state.lucidate
    return state
