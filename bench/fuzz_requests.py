"""Requests that no honest client sends: large ones that cost a server most, and random ones, broken in places.

For `bench/serving_fuzz.py`.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

TAKING = (  # the routes that take a body; nobody is a model that there is not, or it would be gone afterwards
    "/v1/predict",
    "/v1/explain",
    "/v2/models/MODEL/infer",
    "/v2/repository/index",
    "/v2/repository/models/nobody/load",
    "/v2/repository/models/nobody/unload",
)
OTHERS = (  # and those that take none, which may be sent one all the same
    *("/", "/docs", "/openapi.json", "/static/page.js", "/favicon.ico", "/metrics", "/nowhere"),
    *("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/stats", "/v2/models/MODEL"),
    *("/v2/models/MODEL/config", "/v2/models/MODEL/ready", "/v1/models", "/v1/live", "/v1/examples"),
)
Body = tuple[dict[str, str], bytes]  # headers, and what follows them
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
FIELD = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'


@dataclass(frozen=True)
class Sent:
    """What is written to a connection: bytes, and seconds of silence between them. half: is closed after that."""

    name: str
    pieces: tuple[bytes | float, ...]
    half: bool = False


def whole(path: str, headers: dict[str, str], body: bytes, *, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + body


@cache
def png(side: int = 32) -> bytes:
    file = io.BytesIO()
    pixels = (
        np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8) if side < 1000 else np.zeros((side,) * 2)
    )
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


# Large ones


def _many(start: bytes, each: str, end: bytes, size: int) -> Body:
    """As many of `each`, which has a place for its number, as fit."""
    count = max(1, (size - len(start) - len(end)) // len(each % 1_000_000))
    return JSON, start + ",".join([each % number for number in range(count)]).encode() + end


def _tensor(shape: list[int], datatype: str, blob: bytes) -> Body:
    one = {"name": "images", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [one]}).encode()
    return {"Inference-Header-Content-Length": str(len(head))}, head + blob


def _inputs(data: bytes, datatype: str = "UINT8", shape: str = "[1,32,32,3]") -> Body:
    head = f'{{"inputs":[{{"name":"images","datatype":"{datatype}","shape":{shape},"data":['.encode()
    return JSON, head + data + b"]}]}"


def _packed(body: Body) -> Body:
    return {**body[0], "Content-Encoding": "gzip"}, gzip.compress(body[1], 1)


INPUT = b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1],"data":[0]}],'
LARGE: dict[str, Callable[[int], Body]] = {
    "names of inputs": lambda size: _many(
        b'{"inputs":[', '{"name":"%x","datatype":"UINT8","shape":[1],"data":[0]}', b"]}", size
    ),
    "names of outputs": lambda size: _many(INPUT + b'"outputs":[', '{"name":"%x"}', b"]}", size),
    "parameters": lambda size: _many(INPUT + b'"parameters":{', '"%x":0', b"}}", size),
    "keys": lambda size: _many(b"{", '"%x":0', b"}", size),
    "empty texts": lambda size: _tensor([size // 4], "BYTES", bytes(size)),
    "a long text": lambda size: _tensor([1], "BYTES", struct.pack("<I", size - 4) + bytes(size - 4)),
    "floats": lambda size: _tensor([size // 4 // 3072, 32, 32, 3], "FP32", bytes(size // 4 // 3072 * 4 * 3072)),
    "lists": lambda size: (JSON, b"[" + b"[]," * (size // 3) + b"0]"),
    "deep lists": lambda size: (JSON, b"[" + (b"[" * 200 + b"]" * 200 + b",") * (size // 401) + b"0]"),
    "brackets": lambda size: (JSON, b"[" * size),
    "numbers": lambda size: _inputs(b"0," * (size // 2) + b"0"),
    "exact numbers": lambda size: _inputs(b"9007199254740993.00001," * (size // 23) + b"0", "FP32"),
    "a long text among short ones": lambda size: _inputs(b'"%s",' % (b"a" * (size // 2)) + b'"",' * 100_000 + b'""'),
    "base64": lambda size: (JSON, b'{"image":"' + b"A" * (size // 4 * 4) + b'"}'),
    "base64 of many": lambda size: (JSON, b'{"images":[' + b'"AAAA",' * (size // 7) + b'"AAAA"]}'),
    "base64 in a tensor": lambda size: _inputs(b'"%s"' % (b"A" * (size // 4 * 4)), "BYTES", "[1]"),
    "escapes": lambda size: (JSON, b'{"image":"' + b"\\u00e9" * (size // 6) + b'"}'),
    "a form's file": lambda size: (FORM, PART + bytes(size) + b"\r\n--b--\r\n"),
    "a form's files": lambda size: (FORM, (PART + b"a\r\n") * (size // len(PART)) + b"--b--\r\n"),
    "a form's fields": lambda size: (FORM, FIELD * (size // len(FIELD)) + b"--b--\r\n"),
    "a form's lines": lambda size: (FORM, PART + b"\r\n--" * (size // 4) + b"\r\n--b--\r\n"),
    "zeros": lambda size: ({}, bytes(size)),
    "an image and more": lambda size: ({}, png() + bytes(size)),
    "many pixels": lambda size: ({}, png(4096) + bytes(max(0, size - len(png(4096))))),
    "zeros, packed": lambda size: _packed(({}, bytes(size))),
    "base64, packed": lambda size: _packed((JSON, b'{"image":"' + b"A" * size + b'"}')),
    "lists, packed": lambda size: _packed((JSON, b"[" + b"[]," * (size // 3) + b"0]")),
}

# Random ones

JUNK = (
    *(b"GET", b"GET /", b" / HTTP/1.1", b"GET / HTTP/9.9", b"GET / HTTP/1.0", b"POST  /v1/predict HTTP/1.1"),
    *(
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0",
        b"GET http://[::1 HTTP/1.1",
        b"\0\0\0\0",
        b"\r\n\r\n",
    ),
    *(
        b"OPTIONS * HTTP/1.1",
        b"CONNECT a:443 HTTP/1.1",
        b"GET /%00%ff HTTP/1.1",
        b"POST /v2/models/%2e%2e/infer HTTP/1.1",
    ),
    *(b"GET /v1/predict?top=" + b"9" * 5000 + b" HTTP/1.1", b"DELETE /v1/models HTTP/1.1", b"HEAD /v1/models HTTP/1.1"),
)
LINES = (
    *(b"Content-Length: -1", b"Content-Length: 9, 9", b"Content-Length: 0x10", b"Content-Length: 99999999999999999999"),
    *(
        b"Content-Length: 18446744073709551616",
        b"Content-Length:",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip",
    ),
    *(b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding : chunked", b"Expect: 100-continue", b"Expect: cake"),
    *(b"Connection: upgrade\r\nUpgrade: h2c", b"Connection: close", b"Content-Encoding: gzip", b"Content-Encoding: br"),
    *(b"Content-Type: application/json", b"Content-Type: multipart/form-data", b"Content-Type: \xff\xfe; boundary="),
    *(b"Content-Type: multipart/form-data; boundary=b", b"Inference-Header-Content-Length: 0"),
    *(
        b"Inference-Header-Content-Length: 10",
        b"Inference-Header-Content-Length: -1",
        b"Host: [::1",
        b"Origin: http://[",
    ),
    *(
        b" folded",
        b"No colon",
        b": no name",
        b"X\0: nul",
        b"X: \xff\xfe\x80",
        b"X: " + b"a" * 70_000,
        b"X: a\r\n" * 300,
    ),
    *(
        b"X-Request-ID: " + b"a" * 300,
        b"Accept: image/png",
        b"Accept-Encoding: gzip;q=,deflate",
        b"Authorization: Bearer",
    ),
)
QUERIES = (
    *("", "?top=0", "?top=" + "9" * 30, "?model=%00", "?model=MODEL&version=1", "?calibrated=no", "?target=3&side=8"),
    *("?method=rollout", "?method=occlusion&side=64", "?side=1", "?%ff=%fe", "?" + "a=b&" * 500, "?top=3&top=x"),
)
VALUES = (
    "null",
    "-1",
    "1e999",
    "[]",
    "{}",
    '"\\u0000"',
    "true",
    "9" * 40,
    '"' + "a" * 3000 + '"',
    "[" * 300,
    "0.5",
    '"BYTES"',
)
NAMES = (
    "name",
    "datatype",
    "shape",
    "data",
    "parameters",
    "inputs",
    "outputs",
    "id",
    "binary_data_size",
    "image",
    "images",
)


def broken(chance: random.Random, *, model: str) -> Sent:
    """A request of which something is wrong, mostly."""
    path = chance.choice(TAKING if chance.random() < 0.8 else OTHERS)
    headers, body = _body(chance)
    method = chance.choice(("POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS"))
    content = whole(path + chance.choice(QUERIES), headers, body, method=method).replace(b"MODEL", model.encode())
    ways: tuple[Callable[[random.Random, bytes], Sent], ...] = (
        _as_it_is,
        _line,
        _header,
        _length,
        _chunks,
        _cut,
        _slow,
        _flipped,
    )
    return chance.choice(ways)(chance, content)


def _body(chance: random.Random) -> Body:
    image = png()
    kind = chance.randrange(8)
    if kind == 0:
        return {}, image
    if kind == 1:  # an image that is damaged
        damaged = bytearray(image)
        for _ in range(chance.randint(1, 20)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        return {}, bytes(damaged[: chance.randint(1, len(damaged))])
    if kind == 2:
        return FORM, PART * chance.randint(0, 300) + image + b"\r\n--b" + chance.choice((b"--", b"", b"\r\n", b"-- "))
    if kind == 3:
        return JSON, json.dumps({"images": [base64.b64encode(image).decode()] * chance.randint(0, 4)}).encode()
    if kind == 4:  # a tensor whose sizes lie
        shape = [chance.choice((0, 1, 2, 32, 2**31 - 1, 257)) for _ in range(chance.randint(1, 5))]
        headers, body = _tensor(
            shape, chance.choice(("UINT8", "FP32", "BYTES", "BF16", "BOOL")), bytes(chance.choice((0, 8, 3072)))
        )
        length = int(headers["Inference-Header-Content-Length"]) + chance.choice((0, 0, -1, 1, 5000))
        return {"Inference-Header-Content-Length": str(length)}, body
    if kind == 5:
        texts = b"".join(struct.pack("<I", chance.choice((0, 1, len(image), 2**32 - 1))) + image for _ in range(3))
        return _tensor([chance.choice((1, 3, 9))], "BYTES", texts)
    if kind == 6:  # the large ones, small
        return LARGE[chance.choice(tuple(LARGE))](chance.choice((1_000, 20_000, 300_000)))
    pairs = ",".join(f'"{chance.choice(NAMES)}":{chance.choice(VALUES)}' for _ in range(chance.randint(0, 6)))
    return JSON, chance.choice(("{%s}", '{"inputs":[{%s}]}', "[%s]", '{"images":[{%s}]}')).replace("%s", pairs).encode()


def _as_it_is(chance: random.Random, content: bytes) -> Sent:
    return Sent("as it is", (content * chance.choice((1, 1, 3)),))  # several: one behind the other


def _line(chance: random.Random, content: bytes) -> Sent:
    return Sent("another line", (chance.choice(JUNK) + content[content.index(b"\r\n") :],))


def _header(chance: random.Random, content: bytes) -> Sent:
    line, rest = content.split(b"\r\n", 1)
    added = b"".join(chance.choice(LINES) + b"\r\n" for _ in range(chance.randint(1, 3)))
    return Sent("other headers", (line + b"\r\n" + added + rest,))


def _length(chance: random.Random, content: bytes) -> Sent:
    head, body = content.split(b"\r\n\r\n", 1)
    claimed = max(0, len(body) + chance.choice((-9, -1, 1, 9, 10**6, 10**9, 10**18)))
    told = head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % claimed)
    return Sent("another length", (told + b"\r\n\r\n" + body,), half=True)


def _chunks(chance: random.Random, content: bytes) -> Sent:
    head, body = content.split(b"\r\n\r\n", 1)
    head = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    size = max(chance.choice((1, 7, 1000, 10**6)), len(body) // 5000)
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    wrong = chance.randrange(max(1, 3 * len(parts)))
    pieces = []
    for place, part in enumerate(parts):
        told = b"%x" % len(part)
        if place == wrong:
            told = chance.choice(
                (b"zz", b"-1", b"f" * 20, told + b";" + b"x" * 5000, b"%x" % (len(part) + 1), b"", b"0")
            )
        pieces.append(told + b"\r\n" + part + b"\r\n")
    end = chance.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX: trailer\r\n\r\n", b"0\r\n", b""))
    return Sent("chunks", (head + b"\r\n\r\n" + b"".join(pieces) + end,), half=True)


def _cut(chance: random.Random, content: bytes) -> Sent:
    return Sent("cut", (content[: chance.randrange(1, len(content))],), half=chance.random() < 0.9)


def _slow(chance: random.Random, content: bytes) -> Sent:
    places = sorted(chance.randrange(len(content)) for _ in range(chance.randint(1, 4)))
    pieces: list[bytes | float] = []
    for start, stop in zip([0, *places], [*places, len(content)], strict=True):
        pieces += [content[start:stop], chance.choice((0.0, 0.01, 0.1))]
    return Sent("slow", tuple(pieces), half=chance.random() < 0.5)


def _flipped(chance: random.Random, content: bytes) -> Sent:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        place = min(len(changed) - 1, int(chance.expovariate(1 / 150)))  # mostly of the head
        way = chance.randrange(3)
        if way == 0:
            changed[place] = chance.randrange(256)
        elif way == 1:
            changed[place : place + chance.randint(1, 9)] = b""
        else:
            changed[place:place] = changed[place : place + 9]
        if not changed:
            break
    return Sent("flipped", (bytes(changed),), half=True)
