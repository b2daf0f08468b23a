"""What stands before every route, one concern each: see `with_middleware` for their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucidate.serve import logging
from lucidate.serve.access import AccessControl
from lucidate.serve.errors import Expired, RequestError
from lucidate.serve.http_protocol import ON_DISCONNECT
from lucidate.serve.request_body import ClientGone, RequestBody
from lucidate.serve.settings import Settings
from lucidate.serve.state import CONTEXT, RequestContext

UNTIMED = "/v2/repository/"  # loading a model may take its time
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


class QueueAdmission:
    """Refuses what would find its model's queue full, before its body is read."""

    def __init__(self, app: ASGIApp, admit: Admit) -> None:
        self.app = app
        self.admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope[CONTEXT].open:
            self.admit(scope)
        await self.app(scope, receive, send)


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
