"""A request's body, read whole within bounds of size and time, and unpacked within the same bounds."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping

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
    unpacked = await asyncio.get_running_loop().run_in_executor(None, _unpack, body, CODINGS[coding], limit)
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
