from __future__ import annotations

import contextlib
import io
import os
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from writers import encode, make_images, png

from lucidate.core.errors import SourceError
from lucidate.data.decode import UPRIGHT, DecodeError, decode, image_size, read_encoded, resize


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_keep_every_pixel(format, pixels):
    options = {"lossless": True} if format == "WEBP" else {}
    content = encode(Image.fromarray(pixels), format, **options)
    decoded = decode(content, size=None)
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    assert image_size(content) == (30, 20)


def test_jpeg_and_gif_as_pillow_reads_them(pixels):
    for format in ("JPEG", "GIF"):
        content = encode(Image.fromarray(pixels), format)
        np.testing.assert_array_equal(
            decode(content, size=None), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        )


def test_cmyk():
    image = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    np.testing.assert_array_equal(decode(encode(image, "TIFF"), size=None), np.full((4, 4, 3), (0, 255, 255)))
    assert np.abs(decode(encode(image, "JPEG"), size=None).astype(int) - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_scaled(format):
    values = np.array([[0, 257, 25700, 65535], [128, 129, 40000, 1000]], dtype=np.uint16)
    decoded = decode(encode(Image.fromarray(values), format), size=None)
    np.testing.assert_array_equal(decoded, np.rint(values / 257)[..., None].repeat(3, -1))


def test_16_bit_rgb_png():
    raw = b"".join(b"\0" + struct.pack(">6H", 65535, 32768, 0, 256, 512, 1024) for _ in range(2))
    content = _png(2, 2, depth=16, color=2, data=raw)
    np.testing.assert_array_equal(decode(content, size=None), [[[255, 128, 0], [1, 2, 4]]] * 2)


def test_floating_point_tiff():
    for values, expected in (([[0.0, 0.5, 1.0]], [0, 128, 255]), ([[-3.0, 100.4, 999.0]], [0, 100, 255])):
        content = encode(Image.fromarray(np.array(values, dtype=np.float32)), "TIFF")
        np.testing.assert_array_equal(decode(content, size=None)[0, :, 0], expected)


def test_transparency_lies_on_white():
    rng = np.random.default_rng(1)
    rgba = rng.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    alpha = rgba[..., 3:].astype(float)
    expected = np.rint((rgba[..., :3] * alpha + 255 * (255 - alpha)) / 255)
    assert np.abs(decode(png(rgba), size=None) - expected).max() == 0
    la = np.stack([rgba[..., 0], rgba[..., 3]], axis=-1)
    decoded = decode(encode(Image.fromarray(la, mode=None), "PNG"), size=None)
    np.testing.assert_array_equal(decoded, expected[..., :1].repeat(3, -1))


def test_transparent_palette_and_gray():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\xff"):
        decoded = decode(encode(image, "PNG", transparency=transparency), size=None)
        np.testing.assert_array_equal(decoded, [[[255, 255, 255], [200, 100, 50]]])
    gray = encode(Image.fromarray(np.array([[7, 8]], dtype=np.uint8)), "PNG", transparency=7)
    np.testing.assert_array_equal(decode(gray, size=None), [[[255] * 3, [8] * 3]])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(format, orientation, pixels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    content = encode(Image.fromarray(pixels), format, exif=exif, **options)
    expected = pixels if orientation == 1 else np.asarray(Image.fromarray(pixels).transpose(UPRIGHT[orientation]))
    decoded = decode(content, size=None)
    np.testing.assert_array_equal(decoded, expected)
    assert image_size(content) == (decoded.shape[1], decoded.shape[0])


def test_exif_orientation_of_jpeg_agrees_with_pillow(pixels):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encode(Image.fromarray(pixels), "JPEG", exif=exif)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        np.testing.assert_array_equal(decode(content, size=None), np.asarray(expected))
        assert image_size(content) == expected.size


def test_a_broken_exif_block_costs_nothing_but_the_orientation(pixels):
    content = encode(Image.fromarray(pixels), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(content, size=None).shape == (20, 30, 3)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        content = encode(frames[0], format, save_all=True, append_images=frames[1:], duration=50, **options)
        np.testing.assert_array_equal(decode(content, size=None), np.full((4, 4, 3), (255, 0, 0)))


def test_size_resizes_the_shorter_side_and_crops_the_centre(pixels):
    expected = Image.fromarray(pixels).resize((15, 10), Image.Resampling.BICUBIC).crop((2, 0, 12, 10))
    np.testing.assert_array_equal(decode(png(pixels), size=10), np.asarray(expected))
    np.testing.assert_array_equal(resize(pixels, size=10), np.asarray(expected))
    square = pixels[:, :20]
    np.testing.assert_array_equal(decode(png(square), size=20), square)
    assert decode(png(square), size=64).shape == (64, 64, 3)


def test_a_thin_strip_is_sized_without_growing_past_memory():
    strip = np.zeros((1, 30_000, 3), dtype=np.uint8)
    strip[:, 14_990:15_010] = 200
    np.testing.assert_array_equal(decode(png(strip), size=64), np.full((64, 64, 3), 200))


def test_cropping_first_changes_nothing_in_long_images():
    image = np.random.default_rng(2).integers(0, 256, (40, 360, 3), dtype=np.uint8)
    whole = Image.fromarray(image).resize((180, 20), Image.Resampling.BICUBIC, reducing_gap=3).crop((80, 0, 100, 20))
    assert np.abs(decode(png(image), size=20).astype(int) - np.asarray(whole).astype(int)).max() <= 1


def test_large_jpeg_is_drafted_to_nearly_the_same_pixels():
    y, x = np.mgrid[0:1200, 0:1600]
    smooth = np.stack([x / 1600, y / 1200, (x + y) / 2800], axis=-1)
    content = encode(Image.fromarray((smooth * 255).astype(np.uint8)), "JPEG", quality=95)
    slow = resize(decode(content, size=None), size=32)
    assert np.abs(decode(content, size=32).astype(int) - slow.astype(int)).max() <= 3


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *, depth: int = 8, color: int = 2, data: bytes = b"", extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    pieces = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data)) + extra + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pieces


def test_exif_behind_the_pixels_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = _png(2, 1, data=b"\0\1\2\3\4\5\6", extra=_chunk(b"eXIf", exif.tobytes()[6:]))
    np.testing.assert_array_equal(decode(content, size=None), [[[1, 2, 3]], [[4, 5, 6]]])
    assert image_size(content) == (1, 2)


@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 20_000), (9_000, 9_000), (100_000, 1), (30_001, 1), (8_001, 8_000)]
)
def test_a_bomb_is_refused_by_its_header(width, height):
    for read in (lambda content: decode(content, size=32), image_size):
        with pytest.raises(DecodeError, match=f"^too large: {width}×{height} pixels$"):
            read(_png(width, height))


def test_reasons(pixels):
    whole = {name: encode(Image.fromarray(pixels), name) for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}
    cases = {b"": "empty file", b"hello, world": "not an image", b"%PDF-1.7 ...": "not an image"}
    for content, reason in cases.items():
        with pytest.raises(DecodeError, match=f"^{reason}$"):
            decode(content, size=None)
    for name, content in whole.items():
        with pytest.raises(DecodeError, match=r"^(truncated|damaged) image$"):
            decode(content[: len(content) // 2], size=8)
        if name in ("PNG", "JPEG"):
            with pytest.raises(DecodeError, match=r"^truncated image$"):
                decode(content[:-300], size=None)
    assert issubclass(DecodeError, SourceError)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_of_any_kind_is_a_decode_error_or_pixels(data):
    name = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    content = bytearray(encode(Image.fromarray(make_images(1)[0][0]), name))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(200, len(content) - 1)))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(DecodeError):
        assert decode(content, size=16).shape == (16, 16, 3)


def test_warnings_stay_inside_in_many_threads():
    before = list(warnings.filters)
    odd = _png(2, 1, data=b"\0\1\2\3\4\5\6") + b"trailing"
    truncated_tiff = encode(Image.fromarray(make_images(1)[0][0]), "TIFF")[:-20]
    corrupt = encode(Image.new("RGB", (4, 4)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")

    def attempt(content: bytes) -> None:
        with contextlib.suppress(DecodeError):
            decode(content, size=8)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, [odd, truncated_tiff, corrupt] * 200))
    assert warnings.filters == before


def test_a_file_is_judged_before_it_is_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.new("RGB", (8, 8)), "PNG"))
    assert read_encoded(path) == path.read_bytes()
    for size, reason in ((1 << 40, "too large: 1,099,511,627,776 bytes"), (0, "empty file")):
        os.truncate(path, size)  # sparse: it takes no room
        with pytest.raises(DecodeError, match=reason):
            read_encoded(path)
    os.truncate(path, 200 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="not an image"):
            read_encoded(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DecodeError, match="not a file"):
        read_encoded(tmp_path / "pipe.png")
    with pytest.raises(FileNotFoundError):
        read_encoded(tmp_path / "none.png")
