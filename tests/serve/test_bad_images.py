"""Images that are broken, hostile or merely odd. Numbers are those of the list of faults that a server must survive."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from live_server import Reply, Running, encoded, photo, running
from numpy.typing import NDArray
from PIL import Image

from lucidate.core.run import RunDir
from lucidate.serve.settings import Settings


@pytest.fixture(scope="module")
def server(untrained: RunDir) -> Iterator[Running]:
    with running(Settings(access_log=True, max_batch=8), {"one": untrained}) as server:
        yield server


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *, depth: int = 8, color: int = 2, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def zeros(rows: int, row_bytes: int) -> bytes:
    """Compressed rows of an empty image, a piece at a time: it would not fit into memory at once."""
    packer, row = zlib.compressobj(9), bytes(row_bytes + 1) * 100
    return b"".join(packer.compress(row) for _ in range(rows // 100)) + packer.flush()


def text_bomb() -> bytes:
    bombs = b"".join(chunk(b"zTXt", b"k%d\0\0" % n + zlib.compress(bytes(1_000_000), 9)) for n in range(70))
    return png(32, 32, zlib.compress(bytes(97 * 32)), extra=bombs)


def damaged(content: bytes) -> bytes:
    """One bit of a chunk is wrong, and so is its checksum."""
    place = content.index(b"IDAT") + 40
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


PHOTO = photo(1)
PNG = encoded(PHOTO)
JPEG = encoded(PHOTO, "JPEG", quality=95)

BAD: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "1-truncated-png": (lambda: PNG[:-300], 400, "truncated image"),
    "1-truncated-jpeg": (lambda: JPEG[:-300], 400, "truncated image"),
    "1-header-alone": (lambda: PNG[:40], 400, "image"),
    "2-empty": (lambda: b"", 400, "empty file"),
    "3-bomb-20000": (lambda: png(20_000, 20_000, zeros(20_000, 2_500), depth=1, color=0), 413, "20000×20000 pixels"),
    "4-bomb-13000": (lambda: png(13_000, 13_000, zeros(13_000, 1_625), depth=1, color=0), 413, "13000×13000 pixels"),
    "4-just-too-large": (lambda: png(4_097, 4_096, b"", depth=1, color=0), 413, "at most 16,777,216 pixels"),
    "5-text-bomb": (text_bomb, 400, "damaged image"),
    "20-profile-bomb": (lambda: encoded(PHOTO, icc_profile=bytes(30_000_000)), 400, "damaged image"),
    "11-strip": (lambda: png(60_000, 1, zlib.compress(bytes(180_001))), 413, "60000×1 pixels"),
    "15-svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', 415, "another format"),
    "16-eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) show", 415, "another format"),
    "16-psd": (lambda: b"8BPS\0\1" + bytes(60), 415, "another format"),
    "16-fits": (lambda: b"SIMPLE  =                    T" + bytes(2850), 415, "another format"),
    "16-pdf": (lambda: b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj", 415, "another format"),
    "16-zip": (lambda: zip_of("a.png", PNG), 415, "another format"),
    "18-bad-checksum": (lambda: damaged(PNG), 400, "damaged image|truncated image"),
    "19-text": (lambda: "nothing but words".encode("utf-16"), 415, "another format"),
}


def zip_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def by_every_route(server: Running, content: bytes) -> dict[str, Reply]:
    """The same file in each form that it can be sent in."""
    text = base64.b64encode(content).decode()
    form = b'--b\r\nContent-Disposition: form-data; name="x"; filename="x.txt"\r\nContent-Type: text/plain\r\n\r\n'
    tensor = struct.pack("<I", len(content)) + content
    described = json.dumps(
        {
            "inputs": [
                {
                    "name": "images",
                    "shape": [1],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": len(tensor)},
                }
            ]
        }
    ).encode()
    return {
        "raw": server.predict(content),
        "form": server.predict(form + content + b"\r\n--b--\r\n", Content_Type="multipart/form-data; boundary=b"),
        "json": server.predict(json.dumps({"image": text}).encode(), Content_Type="application/json"),
        "v2": server.ask(
            "/v2/models/one/infer",
            described + tensor,
            headers={"Inference-Header-Content-Length": str(len(described))},
        ),
    }


def assert_right(server: Running, content: bytes = PNG, pixels: NDArray[np.uint8] = PHOTO) -> None:
    """The server lives, and knows this image still."""
    known = server.truth(pixels)
    best = server.predict(content).best
    assert best["index"] == known.argmax()
    assert best["probability"] == pytest.approx(known.max(), abs=1e-4)


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused(name: str, server: Running) -> None:
    make, status, reason = BAD[name]
    content = make()
    for route, reply in by_every_route(server, content).items():
        assert reply.status == status, (route, reply)
        assert re.search(reason, reply.error), (route, reply.error)
    assert_right(server)


def gray16() -> tuple[bytes, NDArray[np.uint8]]:
    values = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    return encoded(values), np.rint(values / 257).astype(np.uint8)[..., None].repeat(3, 2)


def hidden() -> tuple[bytes, NDArray[np.uint8]]:
    """What is transparent is white, whatever color it hides."""
    alpha = np.zeros((32, 32, 1), np.uint8)
    alpha[8:24, 8:24] = 255
    return encoded(np.concatenate([PHOTO, alpha], 2)), np.where(alpha == 255, PHOTO, 255).astype(np.uint8)


def palette() -> tuple[bytes, NDArray[np.uint8]]:
    image = Image.new("P", (32, 32))
    image.putpalette([9, 9, 9, 200, 60, 10])
    image.paste(1, (0, 0, 32, 16))
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0)
    pixels = np.full((32, 32, 3), 255, np.uint8)
    pixels[:16] = (200, 60, 10)
    return file.getvalue(), pixels


def animation(format: str) -> tuple[bytes, NDArray[np.uint8]]:
    first = np.zeros((32, 32, 3), np.uint8)
    first[:16, :, 0] = 255
    rest = [Image.new("RGB", (32, 32), color) for color in ("blue", "green")]
    return encoded(first, format, save_all=True, append_images=rest, duration=50), first


def bits() -> tuple[bytes, NDArray[np.uint8]]:
    values = np.random.default_rng(3).integers(0, 2, (32, 32)).astype(bool)
    return encoded(values), (values[..., None].repeat(3, 2) * 255).astype(np.uint8)


def gray_alpha() -> tuple[bytes, NDArray[np.uint8]]:
    alpha = np.full((32, 32, 1), 255, np.uint8)
    alpha[:8] = 0
    gray = PHOTO[..., :1]
    content = encoded(np.concatenate([gray, alpha], 2))
    return content, np.where(alpha == 255, gray, 255).astype(np.uint8).repeat(3, 2)


def floats() -> tuple[bytes, NDArray[np.uint8]]:
    values = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    return encoded(values, "TIFF"), np.rint(values * 255).astype(np.uint8)[..., None].repeat(3, 2)


def polyglot() -> tuple[bytes, NDArray[np.uint8]]:
    return PNG + zip_of("evil.txt", b"x" * 100), PHOTO


def turned(orientation: int) -> tuple[bytes, NDArray[np.uint8]]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    ways = [None, None, np.fliplr, lambda a: np.rot90(a, 2), np.flipud, None, lambda a: np.rot90(a, -1), None, np.rot90]
    ways[5], ways[7] = (lambda a: a.transpose(1, 0, 2)), (lambda a: np.rot90(a, 2).transpose(1, 0, 2))
    way = ways[orientation]
    return encoded(PHOTO, exif=exif), PHOTO if way is None else np.ascontiguousarray(way(PHOTO))


GOOD: dict[str, Callable[[], tuple[bytes, NDArray[np.uint8]]]] = {
    "6-gray-of-16-bits": gray16,
    "7-transparent": hidden,
    "10-one-pixel": lambda: (encoded(np.full((1, 1, 3), 77, np.uint8)), np.full((32, 32, 3), 77, np.uint8)),
    "12-animated-gif": lambda: animation("GIF"),
    "12-animated-png": lambda: animation("PNG"),
    "13-transparent-palette": palette,
    "14-one-bit": bits,
    "14-gray-alpha": gray_alpha,
    "14-floats": floats,
    "17-polyglot": polyglot,
    "20-large-profile": lambda: (encoded(PHOTO, icc_profile=np.random.default_rng(0).bytes(900_000)), PHOTO),
    **{f"9-exif-{n}": (lambda n=n: turned(n)) for n in range(1, 9)},
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_images_are_seen_as_a_person_sees_them(name: str, server: Running) -> None:
    content, pixels = GOOD[name]()
    known = server.truth(pixels)
    replies = by_every_route(server, content)
    for route in ("raw", "form", "json"):
        best = replies[route].best
        assert best["index"] == known.argmax(), route
        assert best["probability"] == pytest.approx(known.max(), abs=1e-3), route
    np.testing.assert_allclose(replies["v2"].json["outputs"][0]["data"], known, atol=1e-3)


def test_8_printers_colors(server: Running) -> None:
    """A JPEG of cyan, magenta, yellow and black, as Adobe's programs write them, inverted."""
    image = Image.fromarray(PHOTO).convert("CMYK")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=100)
    assert b"Adobe" in file.getvalue()
    known = server.truth(np.array(image.convert("RGB")))
    found = server.predict(file.getvalue(), "?top=10").json["predictions"][0]["classes"]
    assert {each["index"]: each["probability"] for each in found} == pytest.approx(dict(enumerate(known)), abs=0.15)


def test_19_what_a_file_is_called_does_not_matter(server: Running) -> None:
    known = server.truth(PHOTO).argmax()
    for kind in ("image/jpeg", "text/html", "application/x-www-form-urlencoded", "nonsense", ""):
        assert server.predict(PNG, Content_Type=kind).best["index"] == known


def test_20_as_much_beside_the_pixels_as_a_jpeg_can_hold(server: Running) -> None:
    noise = np.random.default_rng(0).bytes(3_000_000)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + noise[:65_000]
    content = encoded(PHOTO, "JPEG", exif=exif, icc_profile=noise, quality=95)
    known = server.truth(np.array(Image.open(io.BytesIO(content)).convert("RGB")))
    assert server.predict(content).best["probability"] == pytest.approx(known.max(), abs=1e-4)


def test_a_bad_one_among_good_ones_costs_nobody_else_the_answer(server: Running) -> None:
    others = [encoded(photo(number)) for number in range(2, 22)]
    contents = [PNG, b"no image", *others, png(20_000, 20_000, b"", depth=1, color=0)]
    body = json.dumps({"images": [base64.b64encode(content).decode() for content in contents]}).encode()
    found = server.predict(body, Content_Type="application/json").json["predictions"]
    assert "another format" in found[1]["error"]
    assert "too large" in found[-1]["error"]
    for content, prediction in zip([PHOTO, *(photo(n) for n in range(2, 22))], [found[0], *found[2:-1]], strict=True):
        known = server.truth(content)
        assert prediction["classes"][0]["index"] == known.argmax()
        assert prediction["classes"][0]["probability"] == pytest.approx(known.max(), abs=1e-4)


def test_all_bad_ones_are_a_bad_request(server: Running) -> None:
    body = json.dumps({"images": [base64.b64encode(b"no image").decode()] * 2}).encode()
    reply = server.predict(body, Content_Type="application/json")
    assert reply.status == 400
    assert "another format" in reply.error


def test_large_images_are_decoded_beside_small_ones(server: Running) -> None:
    """In threads, not on the event loop; the answers are the same."""
    large = np.repeat(np.repeat(PHOTO, 40, 0), 40, 1)
    known = server.truth(PHOTO).argmax()
    assert server.predict(encoded(large)).best["index"] == known
    assert server.predict(encoded(large, "JPEG", quality=95)).best["index"] == known
