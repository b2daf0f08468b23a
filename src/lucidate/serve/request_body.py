"""A request's body, read whole within bounds of size and time, unpacked and parsed within bounds too."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from starlette.types import Receive

from lucidate.serve.errors import BadRequest, RequestError

CODINGS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}  # → zlib's format


class ClientGone(Exception):
    """The client went before all of its request had come."""


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], *, limit: int, take: Callable[[int], None]
) -> bytes:
    """The body as it was meant, of at most `limit` bytes both as it comes and unpacked.

    take: is told how many bytes each piece adds to what is held, and may raise.
    Raises RequestError (400, 413, 415) and ClientGone.
    """
    claimed = headers.get(b"content-length", b"0")
    if not claimed.isdigit():
        raise BadRequest("Content-Length: expected a number, received something else")
    if len(claimed) > 18 or int(claimed) > limit:
        raise _too_large(limit)
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    if coding != b"identity" and coding not in CODINGS:
        raise RequestError(
            "Content-Encoding: expected gzip, deflate or none, received another",
            status=415,
            headers={"Accept-Encoding": "gzip, deflate"},
        )
    body = await _received(receive, limit, take)
    if coding == b"identity":
        return body
    # In a thread: some kilobytes can become the whole limit.
    unpacked = await asyncio.to_thread(_unpack, body, CODINGS[coding], limit)
    take(len(unpacked))
    return unpacked


async def _received(receive: Receive, limit: int, take: Callable[[int], None]) -> bytes:
    parts: bytearray | None = None
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        if len(piece) + len(parts or b"") > limit:
            raise _too_large(limit)
        take(len(piece))
        if not message.get("more_body", False):
            if parts is None:
                return piece  # the usual case: nothing is copied
            parts += piece
            return bytes(parts)
        parts = bytearray() if parts is None else parts
        parts += piece


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


@dataclass(frozen=True)
class JsonLimits:
    """What one body may hold. values: numbers, texts, lists and objects, by the commas and brackets that part them."""

    bytes: int = 16_777_216
    values: int = 500_000


def parse_json(text: bytes, *, limits: JsonLimits, instead: str) -> Any:
    """What a JSON text says. instead: what to do about too large a one, for its error.

    Raises RequestError (413) before anything is parsed, orjson.JSONDecodeError.
    """
    if len(text) > limits.bytes:
        raise RequestError(
            f"body: expected at most {limits.bytes:,} bytes of JSON, received {len(text):,}; {instead}", status=413
        )
    if len(text) > limits.values and sum(map(text.count, (b",", b"[", b"{"))) > limits.values:
        raise RequestError(
            f"body: expected at most {limits.values:,} values in JSON, received more; {instead}", status=413
        )
    return orjson.loads(text)


LARGE = 262_144  # bytes of a form, of JSON or of pixels: below, they take about a millisecond, of the worst JSON ten
T = TypeVar("T")


async def in_thread_if_large(size: int, work: Callable[[], T]) -> T:
    """What `work` returns, which takes apart or puts together about `size` bytes. Raises what it raises."""
    if size < LARGE:
        return work()
    return await asyncio.to_thread(work)
