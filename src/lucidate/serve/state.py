"""What every route of the server may see."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Scope

from lucidate.serve.metrics import Metrics
from lucidate.serve.settings import Settings

if TYPE_CHECKING:
    from lucidate.serve.repository import Repository
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np

CONTEXT = "lucidate.context"  # in a scope: its RequestContext
OPEN = ("/v2/health/", "/healthz", "/readyz", "/static/", "/docs", "/openapi.json", "/favicon.ico")  # to anybody
SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
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


class RequestContext:
    """What is known of a request.

    open: whether anybody may ask it. status: of its answer, 0 before that begins. body_bytes: that were read of it.
    """

    __slots__ = ("body_bytes", "failure", "headers", "id", "open", "status")

    def __init__(self, scope: Scope) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        shown = self.headers.get(b"x-request-id", b"")
        self.id = shown if SANE_ID.fullmatch(shown) else secrets.token_hex(8).encode()
        self.open: bool = scope["path"] == "/" or scope["path"].startswith(OPEN)
        self.status = 0
        self.body_bytes = 0
        self.failure: Exception | None = None


def request_id(scope: Mapping[str, Any]) -> str:
    """The id of a request: its own X-Request-ID, else one that was made for it."""
    return str(scope[CONTEXT].id.decode()) if CONTEXT in scope else ""
