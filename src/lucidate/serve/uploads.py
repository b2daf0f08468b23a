"""A request's body → the encoded images in it: raw bytes, a form's files, or base64 in JSON."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lucidate.serve.errors import BadRequest, RequestError
from lucidate.serve.json_limits import JsonLimits, parsed

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
        content = parsed(body, limits=limits, instead="send images as they are, or in a form")
    except orjson.JSONDecodeError:
        raise BadRequest("body: expected JSON, as Content-Type says, received something else") from None
    several = isinstance(content, dict) and set(content) == {"images"}
    if not several and not (isinstance(content, dict) and set(content) == {"image"}):
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
    except (binascii.Error, ValueError):
        return BadRequest("image: expected base64, received something else")


def _in_form(body: bytes, content_type: str, most: int) -> list[bytes]:
    """The content of each part that has a file's name, in memory: it is no more than the body, which was bounded."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BadRequest(f"{FORM}, received no boundary")
    form = _Form(most)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin,
                "on_header_field": form.header_name,
                "on_header_value": form.header_value,
                "on_header_end": form.header_end,
                "on_headers_finished": form.headers_end,
                "on_part_data": form.data,
                "on_part_end": form.end,
            },
            max_header_count=PART_HEADERS,
        )
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
