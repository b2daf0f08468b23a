"""Images as they come in a request → pixels, without keeping the event loop from other requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lucidate.data.decode import DecodeError, TooLarge, UnknownFormat, decode
from lucidate.serve.errors import BadRequest, Overloaded, RequestError

Decoded = NDArray[np.uint8] | RequestError

LANES = 2  # threads that decode: large images leave the interpreter's lock to others for most of the time
GROUP = 16  # images that a thread takes at a time: a hand-off costs about what a small image does
AT_ONCE = 4  # small images that are decoded on the event loop, 0.1 ms each: handing them over would cost as much
SMALL_BYTES, SMALL_PIXELS = 16_384, 65_536  # of such an image, by its file and by its header
PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
TOO_LARGE = 413
FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # JPEG's markers of a frame, which tell its size
FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF or PNM"

_pool = ThreadPoolExecutor(LANES, thread_name_prefix="decode")  # starts no thread before its first work


@dataclass(frozen=True)
class ImageLimits:
    """What one request may hold. images: how many. pixels: of each. backlog: images that wait for a thread, in all."""

    images: int = 256
    pixels: int = 16_777_216
    backlog: int = 2048


class _Backlog:
    """How many images wait for a thread, over all requests."""

    def __init__(self) -> None:
        self.images = 0


_backlog = _Backlog()


async def decode_images(blobs: Sequence[bytes], *, size: int, limits: ImageLimits) -> list[Decoded]:
    """Each encoded image as RGB pixels (size, size, 3), or what is wrong with it, in their order.

    A RequestError in the list has the status of a request that holds nothing else: 400, 413 or 415. Raises RequestError
    for too many images (413), Overloaded while too many of others wait.
    """
    if len(blobs) > limits.images:
        raise RequestError(
            f"images: expected at most {limits.images:,} in a request, received {len(blobs):,}", status=TOO_LARGE
        )
    if len(blobs) <= AT_ONCE and all(map(_is_small, blobs)):
        found = [_decoded(blob, size, min(limits.pixels, SMALL_PIXELS)) for blob in blobs]
        if not any(isinstance(one, RequestError) and one.status == TOO_LARGE for one in found):
            return found
        # A header may claim less than what the decoder finds later in the file: such images are none of the loop's.
    if _backlog.images + len(blobs) > limits.backlog:
        raise Overloaded("images: too many wait to be decoded; come again in a second")
    _backlog.images += len(blobs)
    gone = threading.Event()
    groups = [slice(start, start + GROUP) for start in range(0, len(blobs), GROUP)]
    found = []
    loop = asyncio.get_running_loop()

    def decode_group(group: Sequence[bytes]) -> list[Decoded]:
        return [] if gone.is_set() else [_decoded(blob, size, limits.pixels) for blob in group]

    try:
        # One group a lane at a time: a large request does not keep small ones waiting behind all of its images.
        for start in range(0, len(groups), LANES):
            turns = [loop.run_in_executor(_pool, decode_group, blobs[group]) for group in groups[start : start + LANES]]
            for part in await asyncio.gather(*turns):
                found += part
    finally:
        gone.set()
        _backlog.images -= len(blobs)
    return found


def _decoded(blob: bytes, size: int, pixels: int) -> Decoded:
    try:
        return decode(blob, size=size, max_pixels=pixels)
    except UnknownFormat:
        return RequestError(f"image: expected {FORMATS}, received another format", status=415)
    except TooLarge as error:
        return RequestError(
            f"image: expected at most {pixels:,} pixels, received one that is {error}", status=TOO_LARGE
        )
    except DecodeError as error:
        return BadRequest(f"image: expected one that can be read, received: {error}")


def _is_small(blob: bytes) -> bool:
    """Whether it is quick to decode, by what its header says."""
    if len(blob) > SMALL_BYTES:
        return False
    width, height = _claimed(blob)
    return 0 < width * height <= SMALL_PIXELS


def _claimed(blob: bytes) -> tuple[int, int]:
    """The size that a PNG or JPEG claims to have; (0, 0) of other formats and of damaged ones."""
    if blob.startswith(PNG_HEAD):
        return int.from_bytes(blob[16:20]), int.from_bytes(blob[20:24])
    if not blob.startswith(b"\xff\xd8"):
        return 0, 0
    place = 2
    while place + 9 <= len(blob) and blob[place] == 0xFF:
        if blob[place + 1] in FRAMES:
            return int.from_bytes(blob[place + 7 : place + 9]), int.from_bytes(blob[place + 5 : place + 7])
        place += 2 + max(2, int.from_bytes(blob[place + 2 : place + 4]))
    return 0, 0
