"""What stands before every route, one concern each: see `with_middleware` for their order."""

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

CONTEXT = "lucidate.context"  # in a scope: its RequestContext
OPEN = ("/v2/health/", "/healthz", "/readyz", "/static/", "/docs", "/openapi.json", "/favicon.ico")  # to anybody
UNTIMED = "/v2/repository/"  # loading a model may take its time
SLOWEST = 8192  # bytes a second that a body has to come at, if it is not there at once
SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
PAGE = b"default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
DOCS = PAGE + b"; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"  # Swagger's
MARGIN = 1.0  # seconds beyond `request_timeout`, within which a queue says itself what has expired
CLIENT_GONE = 499  # the status that is noted, as nginx does: no answer was sent
Observe = Callable[[Scope, int, float], None]  # a request's scope, the status of its answer, its seconds
Admit = Callable[[Scope], None]  # raises Overloaded where nobody will have time for a request


def with_middleware(
    app: ASGIApp, settings: Settings, *, observe: Observe | None = None, admit: Admit | None = None
) -> ASGIApp:
    """The application behind all of it.

    observe: is told of every request that was answered. admit: is asked before a request's body is read.
    """
    app = RequestTimeout(app, settings.request_timeout + MARGIN)
    app = RequestBody(app, settings)
    if admit is not None:
        app = QueueAdmission(app, admit)
    if settings.api_keys or settings.rate:
        app = AccessControl(app, settings)
    app = CancelOnDisconnect(app)
    app = ErrorResponses(app)
    app = ResponseHeaders(app)
    return RequestLog(app, access_log=logging.wanted(settings.access_log), observe=observe)


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


class RequestLog:
    """Makes a request's context; in the end counts it, and writes its line."""

    def __init__(self, app: ASGIApp, *, access_log: bool, observe: Observe | None) -> None:
        self.app = app
        self.access_log = access_log
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        begun = perf_counter()
        context = scope[CONTEXT] = RequestContext(scope)
        try:
            await self.app(scope, receive, send)
        finally:
            seconds = perf_counter() - begun
            if self.observe is not None:
                self.observe(scope, context.status, seconds)
            if self.access_log or context.failure is not None:
                client = scope.get("client")
                fields = {
                    "id": context.id.decode(),
                    "client": client[0] if client else None,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": context.status,
                    "ms": round(1000 * seconds, 2),
                    "bytes": context.body_bytes,
                }
                logging.request_line(fields, failure=context.failure)
            # An error knows the frames that it went through, and these the body, which would wait for a collection.
            context.failure = None


class ResponseHeaders:
    """The headers that every answer has, and the note of its status."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context: RequestContext = scope[CONTEXT]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                headers = list(message.get("headers", ()))
                headers.append((b"x-request-id", context.id))
                headers.append((b"x-content-type-options", b"nosniff"))
                if any(name == b"content-type" and value.startswith(b"text/html") for name, value in headers):
                    headers.append((b"content-security-policy", DOCS if scope["path"] == "/docs" else PAGE))
                    headers.append((b"referrer-policy", b"no-referrer"))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_headers)


class ErrorResponses:
    """Whatever goes wrong becomes an answer, unless one has begun: then nothing can be said any more."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except ClientGone:
            scope[CONTEXT].status = CLIENT_GONE
        except RequestError as error:
            await _refuse(scope, send, error)
        except Exception as error:
            context = scope[CONTEXT]
            context.failure = error
            await _refuse(scope, send, RequestError(f"something went wrong here; its id is {context.id.decode()}"))


async def _refuse(scope: Scope, send: Send, error: RequestError) -> None:
    if scope[CONTEXT].status:
        return
    body = orjson.dumps({"error": error.message})
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers.items()]
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class CancelOnDisconnect:
    """Ends a request's work when its client goes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        task = asyncio.current_task()
        gone = False

        def disconnected() -> None:
            nonlocal gone
            if task is not None and not gone:
                gone = True
                task.cancel()

        scope[ON_DISCONNECT] = disconnected
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            if task is None or not gone:
                raise  # the server's own end
            task.uncancel()
            raise ClientGone from None
        finally:
            del scope[ON_DISCONNECT]  # the connection keeps the scope until its next request


class AccessControl:
    """Asks for a known key, and lets each asker ask so often. Raises RequestError (401) and Overloaded."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.keys = Keys((*settings.api_keys, *settings.admin_keys) if settings.api_keys else ())
        self.rates = Rates(per_second=settings.rate, burst=settings.burst) if settings.rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope[CONTEXT].open:
            self.admit(scope)
        await self.app(scope, receive, send)

    def admit(self, scope: Scope) -> None:
        asker = self.keys.holder(scope[CONTEXT].headers) if self.keys else None
        if self.rates is not None:  # also of those who guess keys
            client = scope.get("client")
            wait = self.rates.wait(asker or (client[0] if client else ""))
            if wait > 0:
                raise Overloaded("too many requests; come again later", retry_after=ceil(wait))
        if self.keys and asker is None:
            raise RequestError(
                "key: expected a known one in X-API-Key or Authorization: Bearer",
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )


class QueueAdmission:
    """Refuses what would find its model's queue full, before its body is read."""

    def __init__(self, app: ASGIApp, admit: Admit) -> None:
        self.app = app
        self.admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope[CONTEXT].open:
            self.admit(scope)
        await self.app(scope, receive, send)


class RequestBody:
    """Reads a body whole, within bounds of size and time: routes find it there at once. held: bytes of all of them."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Nothing that is open to anybody takes a body: those without a key would take the memory for the others'.
        if scope["type"] != "http" or scope[CONTEXT].open:
            await self.app(scope, receive, send)
            return
        context: RequestContext = scope[CONTEXT]
        if scope["method"] in BODILESS and b"content-length" not in context.headers:
            await self.app(scope, receive, send)
            return
        try:
            body = await self.read(context, receive)
            if b"content-encoding" in context.headers:
                scope["headers"] = _unpacked_headers(scope["headers"], len(body))
            again = _Again(body, receive)
            del body  # it goes with the last who needs it
            await self.app(scope, again, send)
        finally:
            self.held -= context.body_bytes

    async def read(self, context: RequestContext, receive: Receive) -> bytes:
        """Raises RequestError (400, 408, 413, 415, 429) and ClientGone."""
        settings, loop = self.settings, asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def take(size: int) -> None:
            if self.held + size > settings.bodies_bytes:
                raise Overloaded("the server holds as much as it can of other requests; come again later")
            self.held += size
            context.body_bytes += size

        def look(before: int) -> None:
            """Another span of time for a body that has come steadily since the last look; else that was all of it."""
            nonlocal timer
            if context.body_bytes - before < SLOWEST * settings.body_timeout:
                clock.reschedule(loop.time())
            else:
                timer = loop.call_later(settings.body_timeout, look, context.body_bytes)

        timer = loop.call_later(settings.body_timeout, look, 0)
        try:
            async with asyncio.timeout(None) as clock:
                return await read_body(receive, context.headers, limit=settings.body_bytes, take=take)
        except TimeoutError:
            text = "body: expected at once, received too slowly or not to its end"
            raise RequestError(text, status=408, headers={"Connection": "close"}) from None
        finally:
            timer.cancel()


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


def _unpacked_headers(headers: list[tuple[bytes, bytes]], size: int) -> list[tuple[bytes, bytes]]:
    outdated = (b"content-encoding", b"content-length", b"transfer-encoding")
    return [pair for pair in headers if pair[0] not in outdated] + [(b"content-length", b"%d" % size)]


class RequestTimeout:
    """Ends a request's work when its time is over. Raises Expired."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(UNTIMED):
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.seconds) as clock:
                await self.app(scope, receive, send)
        except TimeoutError:
            if not clock.expired():
                raise
            raise Expired("the request's time was over before its answer") from None
