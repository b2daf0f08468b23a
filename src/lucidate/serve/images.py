"""A request's body → the encoded images in it → pixels, without keeping the event loop from other requests."""

from __future__ import annotations

import asyncio
import base64
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lucidate.data.decode import DecodeError, TooLarge, UnknownFormat, decode
from lucidate.serve.errors import BadRequest, Overloaded, RequestError
from lucidate.serve.request_body import parse_json
from lucidate.serve.settings import JsonLimits

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
FIELDS = 100  # parts of a form that are no files
PART_HEADERS = 16
PIECE = 1 << 20  # bytes of a form that are searched at once: nobody else is served meanwhile
FORM = "form: expected multipart/form-data with a file for each image"
Upload = bytes | RequestError


def uploads(body: bytes, content_type: str, *, most: int, json: JsonLimits) -> tuple[list[Upload], bool]:
    """Each encoded image in a body, or what is wrong with it; and whether the body could have held several.

    Anything that is neither JSON nor a form is one image, whatever it says it is. most: images, at most.
    Raises BadRequest for what holds no image, RequestError (413) for too many and for more JSON than its limits.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return _in_json(body, most, json)
    if kind == "multipart/form-data":
        files = _in_form(body, content_type, most)
        return [*files], len(files) > 1
    return [body], False


def too_many(most: int) -> RequestError:
    return RequestError(f"images: expected at most {most:,} in a request, received more", status=413)


def _in_json(body: bytes, most: int, limits: JsonLimits) -> tuple[list[Upload], bool]:
    try:
        content = parse_json(body, limits=limits, instead="send images as they are, or in a form")
    except orjson.JSONDecodeError:
        raise BadRequest("body: expected JSON, as Content-Type says, received something else") from None
    names = set(content) if isinstance(content, dict) else set()
    several = names == {"images"}
    if not several and names != {"image"}:
        raise BadRequest('body: expected {"image": "<base64>"} or {"images": ["<base64>", …]}, received other JSON')
    found = content["images"] if several else [content["image"]]
    if not isinstance(found, list) or not found:
        raise BadRequest("images: expected a list of at least one image in base64, received something else")
    if len(found) > most:
        raise too_many(most)
    return [_from_base64(text) for text in found], several


def _from_base64(text: Any) -> Upload:
    if not isinstance(text, str):
        return BadRequest("image: expected base64, received something that is no text")
    if URL.match(text):
        return BadRequest("image: expected base64, received a URL; URLs are never fetched")
    if text.startswith("data:"):
        about, _, text = text.partition(",")
        if not about.endswith(";base64"):
            return BadRequest("image: expected a data URL with ;base64, received another")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return BadRequest("image: expected base64, received something else")


def _in_form(body: bytes, content_type: str, most: int) -> list[bytes]:
    """The content of each part that has a file's name, in memory: it is no more than the body, which was bounded."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BadRequest(f"{FORM}, received no boundary")
    form = _Form(most)
    try:
        parser = MultipartParser(boundary, form.callbacks, max_header_count=PART_HEADERS)  # type: ignore[arg-type]
        for start in range(0, len(body), PIECE):
            parser.write(body[start : start + PIECE])
        parser.finalize()
    except FormParserError:
        raise BadRequest(f"{FORM}, received a malformed one") from None
    if not form.ended:
        raise BadRequest(f"{FORM}, received a part of one")
    if not form.files:
        raise BadRequest(f"{FORM}, received no file in it")
    return form.files


class _Form:
    """What the parser calls, part by part."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.files: list[bytes] = []
        self.ended = False
        self.fields = 0
        self.is_file = False
        self.content = bytearray()  # a list of pieces would take twenty times the memory of a file of short lines
        self.name = self.value = b""

    @property
    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self.begin,
            "on_header_field": self.header_name,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_end,
            "on_part_data": self.data,
            "on_part_end": self.end,
        }

    def begin(self) -> None:
        self.ended = self.is_file = False
        self.content = bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        if self.name.lower() == b"content-disposition":
            self.is_file = b"filename" in parse_options_header(self.value)[1]
        self.name = self.value = b""

    def headers_end(self) -> None:
        if self.is_file and len(self.files) >= self.most:
            raise too_many(self.most)
        self.fields += not self.is_file
        if self.fields > FIELDS:
            raise BadRequest(f"form: expected at most {FIELDS} fields that are no files, received more")

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.is_file:
            self.content += memoryview(data)[start:end]

    def end(self) -> None:
        self.ended = True
        if self.is_file:
            self.files.append(bytes(self.content))


Decoded = NDArray[np.uint8] | RequestError

LANES = 2  # threads that decode: large images leave the interpreter's lock to others for most of the time
GROUP = 16  # images that a thread takes at a time: a hand-off costs about what a small image does
BACKLOG = 2048  # images that wait for a thread, of all requests
BUSY = "images: too many wait to be decoded; come again in a second"
AT_ONCE = 4  # small images that are decoded on the event loop, 0.1 ms each: handing them over would cost as much
SMALL_BYTES, SMALL_PIXELS = 16_384, 65_536  # of such an image, by its file and by its header
PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
TOO_LARGE = 413
FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # JPEG's markers of a frame, which tell its size
FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF or PNM"


class Backlog:
    """How many images wait for a thread, over all requests."""

    def __init__(self) -> None:
        self.images = 0

    @contextmanager
    def waiting(self, images: int, *, most: int, refusal: str) -> Iterator[None]:
        """So many more, until the end of the block. Raises Overloaded where they would be more than `most`."""
        if self.images + images > most:
            raise Overloaded(refusal)
        self.images += images
        try:
            yield
        finally:
            self.images -= images


_backlog = Backlog()
_pool = ThreadPoolExecutor(LANES, thread_name_prefix="decode")  # starts no thread before its first work


async def decode_images(blobs: Sequence[bytes], *, size: int, max_pixels: int, backlog: int = BACKLOG) -> list[Decoded]:
    """Each encoded image as RGB pixels (size, size, 3), or what is wrong with it, in their order.

    max_pixels: of each. A RequestError in the list has the status of a request that holds nothing else: 400, 413 or
    415. Raises Overloaded while too many of others wait.
    """
    if len(blobs) <= AT_ONCE and all(map(_is_small, blobs)):
        found = [_decoded(blob, size, min(max_pixels, SMALL_PIXELS)) for blob in blobs]
        if not any(isinstance(one, RequestError) and one.status == TOO_LARGE for one in found):
            return found
        # A header may claim less than what the decoder finds later in the file: such images are none of the loop's.
    gone = threading.Event()
    loop = asyncio.get_running_loop()

    def decode_group(group: Sequence[bytes]) -> list[Decoded]:
        return [] if gone.is_set() else [_decoded(blob, size, max_pixels) for blob in group]

    found = []
    with _backlog.waiting(len(blobs), most=backlog, refusal=BUSY):
        try:
            # One group a lane at a time: a large request does not keep small ones waiting behind all of its images.
            for start in range(0, len(blobs), GROUP * LANES):
                ends = range(start, min(start + GROUP * LANES, len(blobs)), GROUP)
                tasks = [loop.run_in_executor(_pool, decode_group, blobs[end : end + GROUP]) for end in ends]
                for part in await asyncio.gather(*tasks):
                    found += part
        finally:
            gone.set()
    return found


def _decoded(blob: bytes, size: int, pixels: int) -> Decoded:
    try:
        return decode(blob, size=size, max_pixels=pixels)
    except UnknownFormat:
        return RequestError(f"image: expected {FORMATS}, received another format", status=415)
    except TooLarge as error:
        text = f"image: expected at most {pixels:,} pixels, received one that is {error}"
        return RequestError(text, status=TOO_LARGE)
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
    position = 2
    while position + 9 <= len(blob) and blob[position] == 0xFF:
        if blob[position + 1] in FRAMES:
            return int.from_bytes(blob[position + 7 : position + 9]), int.from_bytes(blob[position + 5 : position + 7])
        position += 2 + max(2, int.from_bytes(blob[position + 2 : position + 4]))
    return 0, 0
