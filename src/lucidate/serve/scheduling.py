"""Requests begin a few at a time, health first: a burst of hundreds does not keep a probe waiting until all have run.

By itself the event loop reads every connection that has something, then runs every request that came of it, and only
then looks for new ones.
"""

from __future__ import annotations

import asyncio
from collections import deque

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

AT_ONCE = 32  # requests that begin in one pass of the loop, of a few tenths of a millisecond each
FIRST = ("/v2/health/", "/healthz", "/readyz")


def in_turns(protocol: type[HttpToolsProtocol], loop: asyncio.AbstractEventLoop) -> type[HttpToolsProtocol]:
    """The protocol, for the connections of one server, whose loop this is."""
    return type("InTurns", (_InTurns, protocol), {"waiting": _Waiting(loop)})


class _Waiting:
    """Requests that have been read and not begun, over all connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._requests: deque[tuple[_InTurns, RequestResponseCycle, ASGI3Application]] = deque()

    def __bool__(self) -> bool:
        return bool(self._requests)

    def add(self, protocol: _InTurns, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if not self._requests:
            self._loop.call_soon(self._begin)
        self._requests.append((protocol, cycle, app))

    def _begin(self) -> None:
        for _ in range(min(AT_ONCE, len(self._requests))):
            protocol, cycle, app = self._requests.popleft()
            protocol.begin(cycle, app)
        if self._requests:
            self._loop.call_soon(self._begin)  # in the next pass, after new requests have been read


class _InTurns(HttpToolsProtocol):
    waiting: _Waiting

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        quiet = len(self.tasks) < AT_ONCE and not self.waiting
        if quiet or cycle.scope["path"].startswith(FIRST):
            self.begin(cycle, app)
        else:
            self.waiting.add(self, cycle, app)

    def begin(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, app)
