"""Who may ask: API keys, known by their hashes alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from pydantic import SecretStr


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
