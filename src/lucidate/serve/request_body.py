"""A request's body, read whole within bounds of size and time, unpacked and parsed within bounds too."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucidate.serve.errors import BadRequest, Overloaded, RequestError
from lucidate.serve.settings import JsonLimits, Settings
from lucidate.serve.state import CONTEXT, RequestContext

SLOWEST = 8192  # bytes a second that a body has to come at, if it is not there at once
OF_PACKED = (b"content-encoding", b"content-length", b"transfer-encoding")  # headers that unpacking makes untrue
BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
Admit = Callable[[Scope], None]  # raises RequestError for a request that is not let in
CODINGS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}  # → zlib's format


class ClientGone(Exception):
    """The client went before all of its request had come."""


def _unpack(body: bytes, format: int, limit: int) -> bytes:
    unpacker = zlib.decompressobj(format)
    try:
        content = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise BadRequest("body: expected what Content-Encoding says, received something else") from None
    if len(content) > limit:
        raise _too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise BadRequest("body: expected one compressed body, received a part of one, or more")
    return content


def _too_large(limit: int) -> RequestError:
    return RequestError(f"body: expected at most {limit:,} bytes, received more", status=413)


def parse_json(text: bytes, *, limits: JsonLimits, instead: str) -> Any:
    """What a JSON text says. instead: what to do about too large a one, for its error.

    Raises RequestError (413) before anything is parsed, orjson.JSONDecodeError.
    """
    if len(text) > limits.bytes:
        most, came = f"{limits.bytes:,} bytes of JSON", f"{len(text):,}"
    elif len(text) > limits.values and sum(map(text.count, (b",", b"[", b"{"))) > limits.values:
        most, came = f"{limits.values:,} values in JSON", "more"
    else:
        return orjson.loads(text)
    raise RequestError(f"body: expected at most {most}, received {came}; {instead}", status=413)


LARGE = 262_144  # bytes of a form, of JSON or of pixels: below, they take about a millisecond, of the worst JSON ten
T = TypeVar("T")


async def in_thread_if_large(size: int, work: Callable[[], T]) -> T:
    """What `work` returns, which takes apart or puts together about `size` bytes. Raises what it raises."""
    if size < LARGE:
        return work()
    return await asyncio.to_thread(work)


class RequestBody:
    """Reads a body whole, within bounds of size and time: routes find it there at once. held: bytes of all of them.

    checks: asked before, of what is not open to anybody. That takes no body: those without a key would take the memory
    for the others'.
    """

    def __init__(self, app: ASGIApp, settings: Settings, checks: Sequence[Admit]) -> None:
        self.app = app
        self.settings = settings
        self.checks = checks
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope[CONTEXT]
        for check in () if context.open else self.checks:
            check(scope)
        if context.open or (scope["method"] in BODILESS and b"content-length" not in context.headers):
            await self.app(scope, receive, send)
            return
        try:
            body: bytes | None = await self.read(context, receive)
            if b"content-encoding" in context.headers:
                kept = [pair for pair in scope["headers"] if pair[0] not in OF_PACKED]
                scope["headers"] = [*kept, (b"content-length", b"%d" % len(body or b""))]

            async def again() -> Message:
                """The body at once, to be kept by whoever asks alone; then what the connection says."""
                nonlocal body
                if body is None:
                    return await receive()
                message, body = {"type": "http.request", "body": body, "more_body": False}, None
                return message

            await self.app(scope, again, send)
        finally:
            self.held -= context.body_bytes

    async def read(self, context: RequestContext, receive: Receive) -> bytes:
        """The body as it was meant, of at most `body_bytes` both as it comes and unpacked.

        Raises RequestError (400, 408, 413, 415, 429) and ClientGone.
        """
        limit = self.settings.body_bytes
        claimed = context.headers.get(b"content-length", b"0")
        if not claimed.isdigit():
            raise BadRequest("Content-Length: expected a number, received something else")
        if len(claimed) > 18 or int(claimed) > limit:
            raise _too_large(limit)
        coding = context.headers.get(b"content-encoding", b"identity").strip().lower()
        if coding != b"identity" and coding not in CODINGS:
            text = "Content-Encoding: expected gzip, deflate or none, received another"
            raise RequestError(text, status=415, headers={"Accept-Encoding": "gzip, deflate"})
        body = await self._received(context, receive)
        if coding == b"identity":
            return body
        # In a thread: some kilobytes can become the whole limit.
        unpacked = await asyncio.to_thread(_unpack, body, CODINGS[coding], limit)
        self._hold(context, len(unpacked))
        return unpacked

    async def _received(self, context: RequestContext, receive: Receive) -> bytes:
        loop, limit, seconds = asyncio.get_running_loop(), self.settings.body_bytes, self.settings.body_timeout
        timer: asyncio.TimerHandle

        def look(before: int) -> None:
            """Another span of time for a body that has come steadily since the last look; else that was all of it."""
            nonlocal timer
            if context.body_bytes - before < SLOWEST * seconds:
                clock.reschedule(loop.time())
            else:
                timer = loop.call_later(seconds, look, context.body_bytes)

        timer = loop.call_later(seconds, look, 0)
        parts = bytearray()
        try:
            async with asyncio.timeout(None) as clock:
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ClientGone
                    piece: bytes = message.get("body", b"")
                    if len(piece) + len(parts) > limit:
                        raise _too_large(limit)
                    self._hold(context, len(piece))
                    if not parts and not message.get("more_body", False):
                        return piece  # the usual case: nothing is copied
                    parts += piece
                    if not message.get("more_body", False):
                        return bytes(parts)
        except TimeoutError:
            text = "body: expected at once, received too slowly or not to its end"
            raise RequestError(text, status=408, headers={"Connection": "close"}) from None
        finally:
            timer.cancel()

    def _hold(self, context: RequestContext, size: int) -> None:
        if self.held + size > self.settings.bodies_bytes:
            raise Overloaded("the server holds as much as it can of other requests; come again later")
        self.held += size
        context.body_bytes += size
