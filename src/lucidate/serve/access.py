"""Who may ask, and how often."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from time import monotonic

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from lucidate.serve.errors import Overloaded, RequestError
from lucidate.serve.settings import Settings
from lucidate.serve.state import CONTEXT


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


KNOWN = 10_000  # askers that are remembered, so that many addresses do not take the memory


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
