"""What stands before every route: who asks, how much, how long; and whatever goes wrong becomes an answer.

A request's body is read here, whole, before anything else runs: routes find it there at once.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Mapping
from math import ceil
from time import perf_counter
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucidate.serve import logging
from lucidate.serve.access import Keys, Rates
from lucidate.serve.errors import Expired, Overloaded, RequestError
from lucidate.serve.http_protocol import ON_DISCONNECT
from lucidate.serve.request_body import ClientGone, read_body
from lucidate.serve.settings import Settings

ID = "lucidate.id"  # in a scope: the request's id
OPEN = ("/v2/health/", "/healthz", "/readyz", "/static/", "/docs", "/openapi.json", "/favicon.ico")  # to anybody
UNTIMED = "/v2/repository/"  # loading a model may take its time
SLOWEST = 8192  # bytes a second that a body has to come at, if it is not there at once
SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
PAGE = b"default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
DOCS = PAGE + b"; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"  # Swagger's
MARGIN = 1.0  # seconds beyond `request_timeout`, within which a queue says itself what has expired
Observe = Callable[[Scope, int, float], None]  # a request's scope, the status of its answer, its seconds
Room = Callable[[Scope], None]  # raises Overloaded where nobody will have time for a request


def guarded(app: ASGIApp, settings: Settings, *, observe: Observe | None = None, room: Room | None = None) -> ASGIApp:
    """The application behind its guard.

    observe: is told of every request that was answered. room: is asked before a request's body is read.
    """
    return Guard(app, settings, observe, room)


def request_id(scope: Mapping[str, Any]) -> str:
    """The id of a request: its own X-Request-ID, else one that was made for it."""
    return str(scope.get(ID, ""))


class Guard:
    """See `guarded`."""

    def __init__(self, app: ASGIApp, settings: Settings, observe: Observe | None, room: Room | None) -> None:
        self.app = app
        self.settings = settings
        self.observe = observe
        self.room = room
        self.keys = Keys((*settings.api_keys, *settings.admin_keys) if settings.api_keys else ())
        self.rates = Rates(per_second=settings.rate, burst=settings.burst) if settings.rate else None
        self.logs = logging.wanted(settings.access_log)
        self.held = 0  # bytes of bodies, of all requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Request(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})


class _Request:
    """One request on its way through."""

    __slots__ = (
        "begun",
        "cut_by",
        "failure",
        "guard",
        "headers",
        "held",
        "id",
        "open",
        "receive",
        "scope",
        "send",
        "status",
        "task",
        "timer",
    )

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard = guard
        self.receive = receive
        self.send = send
        self.begun = perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        shown = self.headers.get(b"x-request-id", b"")
        self.id = shown if SANE_ID.fullmatch(shown) else secrets.token_hex(8).encode()
        self.scope = scope
        scope[ID] = self.id.decode()
        scope[ON_DISCONNECT] = self.gone
        self.open = scope["path"] == "/" or scope["path"].startswith(OPEN)
        self.held = 0
        self.status = 0  # of the answer, once it has begun
        self.cut_by: RequestError | ClientGone | None = None
        self.failure: Exception | None = None
        self.task: asyncio.Task[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        self.task = asyncio.current_task()
        try:
            await self.attempt()
        except asyncio.CancelledError:
            if self.task is None or not isinstance(self.cut_by, ClientGone):
                raise  # the server's own end
            self.task.uncancel()
            self.status = 499
        finally:
            self.task = None
            self.stop_clock()
            del self.scope[ON_DISCONNECT]  # the connection keeps the scope until its next request
            self.guard.held -= self.held
            seconds = perf_counter() - self.begun
            if self.guard.observe is not None:
                self.guard.observe(self.scope, self.status, seconds)
            if self.guard.logs or self.failure is not None:
                self.log(seconds)
            # Errors know the frames that they went through, and these the body, which would wait for a collection.
            self.cut_by = self.failure = None

    async def attempt(self) -> None:
        """Have the request answered, whatever happens."""
        try:
            try:
                self.admit()
                await self.serve()
            except asyncio.CancelledError:
                if self.task is None or not isinstance(self.cut_by, RequestError):
                    raise
                self.task.uncancel()
                raise self.cut_by from None
        except ClientGone:
            self.status = 499
        except RequestError as error:
            await self.refuse(error)
        except Exception as error:
            self.failure = error
            await self.refuse(RequestError(f"something went wrong here; its id is {self.id.decode()}"))

    def admit(self) -> None:
        """Raises RequestError (401) and Overloaded."""
        if self.open:
            return
        guard = self.guard
        asker = None
        if guard.keys:
            asker = guard.keys.holder(self.headers)
        if guard.rates is not None:  # also of those who guess keys
            client = self.scope.get("client")
            wait = guard.rates.wait(asker or (client[0] if client else ""))
            if wait > 0:
                raise Overloaded("too many requests; come again later", retry_after=ceil(wait))
        if guard.keys and asker is None:
            raise RequestError(
                "key: expected a known one in X-API-Key or Authorization: Bearer",
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        if guard.room is not None:
            guard.room(self.scope)

    async def serve(self) -> None:
        guard, settings = self.guard, self.guard.settings
        receive = self.receive
        # Nothing that is open to anybody takes a body: those without a key would fill the room of the others'.
        if not self.open and (self.scope["method"] not in BODILESS or b"content-length" in self.headers):
            self.start_clock(settings.body_timeout, self.look_at_body, 0)
            body = await read_body(self.receive, self.headers, limit=settings.body_bytes, take=self.take)
            self.stop_clock()
            if b"content-encoding" in self.headers:
                self.scope["headers"] = _unpacked_headers(self.scope["headers"], len(body))
            receive = _Again(body, self.receive)
        if not self.scope["path"].startswith(UNTIMED):
            self.start_clock(settings.request_timeout + MARGIN, self.cut, _expired)
        await guard.app(self.scope, receive, self.answer)

    def take(self, size: int) -> None:
        """Count what of a body has come. Raises Overloaded where too much is held."""
        guard = self.guard
        if guard.held + size > guard.settings.bodies_bytes:
            raise Overloaded("the server holds as much as it can of other requests; come again later")
        guard.held += size
        self.held += size

    async def answer(self, message: Message) -> None:
        """`send`, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            headers.append((b"x-request-id", self.id))
            headers.append((b"x-content-type-options", b"nosniff"))
            if any(name == b"content-type" and value.startswith(b"text/html") for name, value in headers):
                headers.append((b"content-security-policy", DOCS if self.scope["path"] == "/docs" else PAGE))
                headers.append((b"referrer-policy", b"no-referrer"))
            message = {**message, "headers": headers}
        await self.send(message)

    async def refuse(self, error: RequestError) -> None:
        """Answer with an error, unless an answer has begun: then nothing can be said any more."""
        self.stop_clock()
        if self.status:
            return
        body = orjson.dumps({"error": error.message})
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers.items()]
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self.answer({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    # What cuts a request short: its time, its client.

    def start_clock(self, seconds: float, then: Callable[..., None], argument: Any) -> None:
        self.stop_clock()
        self.timer = asyncio.get_running_loop().call_later(seconds, then, argument)

    def stop_clock(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def look_at_body(self, before: int) -> None:
        """Another span of time for a body that has come steadily since the last look; else that was all of it."""
        seconds = self.guard.settings.body_timeout
        if self.held - before < SLOWEST * seconds:
            self.cut(_late)
        else:
            self.start_clock(seconds, self.look_at_body, self.held)

    def gone(self) -> None:
        self.cut(ClientGone)

    def cut(self, reason: Callable[[], RequestError | ClientGone]) -> None:
        """Cancel the request's work, once."""
        if self.task is not None and self.cut_by is None:
            self.cut_by = reason()
            self.task.cancel()

    def log(self, seconds: float) -> None:
        client = self.scope.get("client")
        fields = {
            "id": self.id.decode(),
            "client": client[0] if client else None,
            "method": self.scope["method"],
            "path": self.scope["path"],
            "status": self.status,
            "ms": round(1000 * seconds, 2),
            "bytes": self.held,
        }
        logging.request_line(fields, failure=self.failure)


class _Again:
    """`receive` after the body has been read: the body at once, then what the connection says."""

    __slots__ = ("body", "receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.body: bytes | None = body
        self.receive = receive

    async def __call__(self) -> Message:
        if self.body is None:
            return await self.receive()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _late() -> RequestError:
    text = "body: expected at once, received too slowly or not to its end"
    return RequestError(text, status=408, headers={"Connection": "close"})


def _expired() -> RequestError:
    return Expired("the request's time was over before its answer")


def _unpacked_headers(headers: list[tuple[bytes, bytes]], size: int) -> list[tuple[bytes, bytes]]:
    told = (b"content-encoding", b"content-length", b"transfer-encoding")
    return [pair for pair in headers if pair[0] not in told] + [(b"content-length", b"%d" % size)]
