"""An answer's head and body in one write: uvicorn makes two, and uvloop hands each to the system at once."""

from __future__ import annotations

import asyncio

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

CONTINUE = b"HTTP/1.1 100"  # not the head of an answer, and waited for


def in_one_write(protocol: type[HttpToolsProtocol]) -> type[HttpToolsProtocol]:
    """The protocol with answers that take one write, and their client one read."""
    return type("OneWrite", (_OneWrite, protocol), {})


class _OneWrite(HttpToolsProtocol):
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if cycle.scope["method"] != "HEAD":  # whose answers have no body to wait for
            cycle.transport = _Holding(cycle.transport)  # type: ignore[assignment]  # all of it that a cycle uses
        super()._start_asgi_task(cycle, app)


class _Holding:
    """A transport that keeps an answer's head until its body comes."""

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
