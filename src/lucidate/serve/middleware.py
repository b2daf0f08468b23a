"""What stands before every route, one concern each: see `with_middleware` for their order."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from time import monotonic, perf_counter
from urllib.parse import urlsplit

import orjson
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucidate.serve import monitoring
from lucidate.serve.errors import Expired, Overloaded, RequestError
from lucidate.serve.http_protocol import ON_DISCONNECT
from lucidate.serve.request_body import Admit, ClientGone, RequestBody
from lucidate.serve.settings import Settings
from lucidate.serve.state import CONTEXT, Life, RequestContext

UNTIMED = "/v2/repository/"  # loading a model may take its time
PAGE = b"default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
DOCS = PAGE + b"; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"  # Swagger's
MARGIN = 1.0  # seconds beyond `request_timeout`, within which a queue says itself what has expired
CLIENT_GONE = 499  # the status that is noted, as nginx does: no answer was sent
KNOWN = 10_000  # askers that are remembered, so that many addresses do not take the memory
Observe = Callable[[Scope, int, float], None]  # a request's scope, the status of its answer, its seconds


def with_middleware(
    app: ASGIApp,
    settings: Settings,
    *,
    life: Life | None = None,
    observe: Observe = lambda *_: None,
    checks: Sequence[Admit] = (),
) -> ASGIApp:
    """The application behind all of it. Each answers nothing but HTTP: what else a server says goes to `app` itself.

    observe: is told of every request that was answered. checks: are asked before a request's body is read.
    """
    if settings.api_keys or settings.rate:
        checks = [access_control(settings), *checks]
    inner = RequestBody(RequestTimeout(app, settings.request_timeout + MARGIN), settings, checks)
    outer = ResponseHeaders(ErrorResponses(CancelOnDisconnect(inner)), life or Life())
    return RequestLog(outer, app, settings.access_log, observe)


class RequestLog:
    """Makes a request's context; in the end counts it, and writes its line. bare: what answers all but requests."""

    def __init__(self, app: ASGIApp, bare: ASGIApp, access_log: bool | None, observe: Observe) -> None:
        self.app = app
        self.bare = bare
        self.access_log = is_logged(access_log)
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.bare(scope, receive, send)
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
                monitoring.log_request(fields, failure=context.failure)
            # An error knows the frames that it went through, and these the body, which would wait for a collection.
            context.failure = None


def is_logged(access_log: bool | None) -> bool:
    """Whether each request gets its line: as it was set, else where nobody sits before it."""
    return not sys.stderr.isatty() if access_log is None else access_log


class ResponseHeaders:
    """The headers that every answer has, and the note of its status.

    At the server's end each answer closes its connection: closed in between, it might just have been used.
    """

    def __init__(self, app: ASGIApp, life: Life) -> None:
        self.app = app
        self.life = life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                if self.life.closing:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_headers)


class ErrorResponses:
    """Whatever goes wrong becomes an answer, unless one has begun: then nothing can be said any more."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope[CONTEXT]
        try:
            await self.app(scope, receive, send)
        except ClientGone:
            context.status = CLIENT_GONE
        except RequestError as error:
            await _refuse(context, send, error)
        except HTTPException as error:  # the router's: no such path, or not by this method
            await _refuse(context, send, RequestError(error.detail, status=error.status_code, headers=error.headers))
        except Exception as error:
            context.failure = error
            await _refuse(context, send, RequestError(f"something went wrong here; its id is {context.id.decode()}"))


async def _refuse(context: RequestContext, send: Send, error: RequestError) -> None:
    if context.status:
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
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as connected:
                scope[ON_DISCONNECT] = lambda: connected.reschedule(loop.time())
                await self.app(scope, receive, send)
        except TimeoutError:
            if not connected.expired():
                raise
            raise ClientGone from None
        finally:
            del scope[ON_DISCONNECT]  # the connection keeps the scope until its next request


class RequestTimeout:
    """Ends a request's work when its time is over. Raises Expired."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(UNTIMED):
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.seconds) as clock:
                await self.app(scope, receive, send)
        except TimeoutError:
            if not clock.expired():
                raise
            raise Expired("the request's time was over before its answer") from None


# Who may ask, and how often


def access_control(settings: Settings) -> Admit:
    """Asks for a known key, and lets each asker ask so often. Raises RequestError (401) and Overloaded."""
    keys = Keys((*settings.api_keys, *settings.admin_keys) if settings.api_keys else ())
    rates = Rates(per_second=settings.rate, burst=settings.burst) if settings.rate else None

    def admit(scope: Scope) -> None:
        asker = keys.holder(scope[CONTEXT].headers) if keys else None
        if rates is not None:  # also of those who guess keys
            client = scope.get("client")
            wait = rates.wait(asker or (client[0] if client else ""))
            if wait > 0:
                raise Overloaded("too many requests; come again later", retry_after=ceil(wait))
        if keys and asker is None:
            raise no_key("a known one")

    return admit


def no_key(expected: str) -> RequestError:
    text = f"key: expected {expected} in X-API-Key or Authorization: Bearer"
    return RequestError(text, status=401, headers={"WWW-Authenticate": "Bearer"})


def require_admin(request: Request, settings: Settings) -> None:
    """Raise RequestError (401, 403) for whoever may not change what is served.

    Without admin_keys, those may who can reach a server that listens on its own machine alone; pages of other sites,
    which a browser on that machine could be showing, may not.
    """
    if settings.admin_keys:
        if Keys(settings.admin_keys).holder(request.scope[CONTEXT].headers) is None:
            raise no_key("one of admin_keys")
        return
    if not is_loopback(settings.host):
        raise RequestError("loading and unloading: expected a server with admin_keys, and one of them", status=403)
    # A name that leads here for the moment makes a page elsewhere look like one of ours: it must be the machine's own.
    host = request.headers.get("host", "")
    if not is_loopback(_address(f"//{host}")[0]):
        raise RequestError("loading and unloading: expected to be asked by way of localhost", status=403)
    origin = request.headers.get("origin")
    if origin is not None and _address(origin)[1] != host:
        raise RequestError("loading and unloading: expected no request from another site's page", status=403)


def _address(url: str) -> tuple[str, str]:
    """The host that a URL names, and the same with its port; empty where it names none."""
    try:
        found = urlsplit(url)
        return found.hostname or "", found.netloc
    except ValueError:  # brackets that are none of an address
        return "", ""


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from its own machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Keys:
    """A set of keys; empty, it lets everybody in."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._hashes = [_hash(key.get_secret_value().encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def holder(self, headers: Mapping[bytes, bytes]) -> str | None:
        """A name of the key that a request shows (`X-API-Key`, or `Authorization: Bearer`), or None without a good one.

        The time that it takes tells nothing of how much of a key is right: digests are compared, all of them, whole.
        """
        shown = headers.get(b"x-api-key")
        if shown is None:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not token:
                return None
            shown = token.strip()
        digest = _hash(shown)
        matches = [hmac.compare_digest(digest, known) for known in self._hashes]
        return digest.hex()[:12] if any(matches) else None


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


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
