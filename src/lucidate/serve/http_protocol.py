"""uvicorn's HTTP protocol with what it lacks: limits of a request's head, errors as JSON, health first, whole answers.

By itself it waits for ever for the end of a head, and takes header values of megabytes. A burst of hundreds keeps a
probe waiting until all have run: the event loop reads every connection that has something, then runs every request that
came of it, and only then looks for new ones. An answer takes two writes, and its client two reads.

This is the one place that goes by uvicorn's inside (see `HttpProtocol`); a test tells what of it has to be there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from itertools import chain
from typing import TypeAlias

import httptools
import orjson
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lucidate.serve.settings import Settings

MOST_HEADERS = 100  # of a request
AT_ONCE = 32  # requests that begin in one pass of the loop, of a few tenths of a millisecond each
HEALTH = ("/v2/health/", "/healthz", "/readyz")  # begin before all others
CONTINUE = b"HTTP/1.1 100"  # not the head of an answer, and waited for
ON_DISCONNECT = "lucidate.on_disconnect"  # in a scope: what to call when its client goes before the answer


# Requests that have been read and not begun, over all connections of a server.
Pending: TypeAlias = "deque[tuple[HttpProtocol, RequestResponseCycle, ASGI3Application]]"


class _Refused(Exception):
    """A head that is not read to its end."""


def http_protocol(settings: Settings) -> type[HttpToolsProtocol]:
    """The protocol, for uvicorn's `http`, with the limits of one server.

    A head must be complete within `head_timeout` of the connection's beginning, or its own. A connection that sends a
    body which nobody waits for is closed after as long.
    """
    return type("ServerProtocol", (HttpProtocol,), {"settings": settings, "pending": deque()})


def _begin_some(pending: Pending, loop: asyncio.AbstractEventLoop) -> None:
    for _ in range(min(AT_ONCE, len(pending))):
        protocol, cycle, app = pending.popleft()
        protocol.begin(cycle, app)
    if pending:
        loop.call_soon(_begin_some, pending, loop)  # in the next pass, after new requests have been read


class HttpProtocol(HttpToolsProtocol):
    """See `http_protocol`. Of uvicorn's own state it reads `cycle` (the request in work), `scope`, `pipeline`,
    `parser`, `tasks`, and of a cycle how far its answer is; it replaces `_start_asgi_task`.
    """

    settings: Settings
    pending: Pending
    _in_head = False
    _head_bytes = 0  # that came for a head which is not complete
    _refusal: tuple[int, str] | None = None
    _timer: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.settings.connections:
            self.refuse(503, "connections: too many are open; come again later")
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.pipeline.clear()  # requests that wait for the answer of another
        super().connection_lost(exc)
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True  # uvicorn tells the newest request alone, which may not be the one in work
            running.message_event.set()
            notify: Callable[[], None] | None = running.scope.get(ON_DISCONNECT)  # type: ignore[assignment]
            if notify is not None:
                notify()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # What follows the head belongs to a protocol that we do not speak: the request is answered as plain HTTP.
            if self.cycle is not None:
                self.cycle.keep_alive = False
        except httptools.HttpParserError:
            status, message = self._refusal or (400, "request: expected one of HTTP/1.1, well formed; received another")
            self.refuse(status, message)
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.settings.head_bytes:
                self.refuse(431, self._too_long())
                return
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self._arm()

    def refuse(self, status: int, message: str) -> None:
        """Answer a request that never became one, and close the connection."""
        self._disarm()
        if self.transport.is_closing():
            return
        running = self._running
        if running is not None and not running.response_complete:
            if running.response_started or not running.more_body:
                # Another request's answer is under way: this one's would be taken for it.
                self.transport.close()
                return
            running.disconnected = True  # its own body is malformed: this is its answer
        body = orjson.dumps({"error": message})
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if (len(self.tasks) < AT_ONCE and not self.pending) or cycle.scope["path"].startswith(HEALTH):
            self.begin(cycle, app)
            return
        if not self.pending:
            self.loop.call_soon(_begin_some, self.pending, self.loop)
        self.pending.append((self, cycle, app))

    def begin(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Have a request answered."""
        if cycle.scope["method"] != "HEAD":  # whose answers have no body to wait for
            cycle.transport = OneWrite(cycle.transport)  # type: ignore[assignment]  # all of it that a cycle uses
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MOST_HEADERS:
            self._stop(431, f"headers: expected at most {MOST_HEADERS}, received more")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if sum(map(len, chain.from_iterable(self.headers)), len(self.url)) > self.settings.head_bytes:
            self._stop(431, self._too_long())  # it came at once
        self._in_head = False
        self._disarm()
        super().on_headers_complete()

    def _too_long(self) -> str:
        return f"headers: expected at most {self.settings.head_bytes:,} bytes, received more"

    def _stop(self, status: int, message: str) -> None:
        """End the parsing: `data_received` answers."""
        self._refusal = (status, message)
        raise _Refused

    # The clock of a head.

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.settings.head_timeout, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._in_head:
            self.refuse(408, f"headers: expected them within {self.settings.head_timeout:g} seconds")
        elif not self.transport.is_closing():
            self.transport.close()


class OneWrite:
    """A transport that keeps an answer's head until its body comes: uvloop hands each write to the system at once."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = b""  # None once it has been written

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._transport.write(data)
        elif self._head:
            self._transport.write(self._head + data)
            self._head = None
        elif data.startswith(CONTINUE):
            self._transport.write(data)
        else:
            self._head = data

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = None
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
