"""Encoded image → RGB pixels, the same way for training and for anything that decodes later.

What a file may contain is decided by its first bytes, never by its name. Sizes are checked on the header, before
anything is decompressed. Whatever goes wrong becomes one `DecodeError` with a short reason.
"""

from __future__ import annotations

import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lucidate.core.errors import SourceError

MAX_PIXELS = 64_000_000  # 192 MB as RGB; a larger header is refused before anything is decompressed
MAX_SIDE = 30_000  # pixels
MAX_FILE_BYTES = 1 << 30  # no image of allowed size needs more; keeps a stray film out of memory
BEGINNING = 1 << 12  # bytes of a file that tell whether it can be an image
WHITE = (255, 255, 255)  # what stands behind transparent pixels
REDUCING_GAP = 3.0  # Pillow shrinks by whole steps down to 3 × the target before it filters: no visible difference
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {  # its values → what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# First bytes → the reader. Called directly, since Image.open would judge the size by a process-wide setting and
# refuse without telling the size.
READERS: tuple[tuple[tuple[bytes, ...], Callable[[BytesIO], ImageFile.ImageFile]], ...] = (
    ((b"\xff\xd8\xff",), JpegImagePlugin.jpeg_factory),
    ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ((b"RIFF",), WebPImagePlugin.WebPImageFile),
    ((b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ((b"BM",), BmpImagePlugin.BmpImageFile),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    (tuple(b"P%d" % kind for kind in range(1, 7)), PpmImagePlugin.PpmImageFile),
)


class DecodeError(SourceError):
    """One image cannot be read; the message is the bare reason, such as "truncated image"."""


class UnknownFormat(DecodeError):
    """It begins as no image that we read."""


class TooLarge(DecodeError):
    """It has more pixels than are allowed."""


def decode(content: bytes, *, size: int | None, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """An encoded image as RGB pixels, (H, W, 3).

    size: side in pixels; the shorter side is resized to it (bicubic, antialiased), then the centre is cropped; None
    keeps the image's own. EXIF orientation is applied, transparency is laid on white, animations give their first
    frame, 16-bit gray is divided by 257. Floating-point TIFF is taken as 0..1 where every value lies there, else as
    0..255 and clipped. max_pixels: an image whose header tells of more is refused. Raises DecodeError.
    """
    with _quiet(), _reasons():
        image, orientation = _header(content, max_pixels)
        if size is not None:
            width, height = _resized(image.size, size)
            # JPEG can be decoded at 1/2, 1/4 or 1/8; the gap keeps what the filter needs.
            image.draft(None, (int(REDUCING_GAP * width), int(REDUCING_GAP * height)))
        image.load()
        rgb = _to_rgb(image)
        if orientation in UPRIGHT:
            rgb = rgb.transpose(UPRIGHT[orientation])
        return np.array(rgb if size is None else _fit(rgb, size))


def image_size(content: bytes) -> tuple[int, int]:
    """(width, height) in pixels after EXIF orientation, from the header alone. Raises DecodeError."""
    with _quiet(), _reasons():
        image, orientation = _header(content, MAX_PIXELS)
        width, height = image.size
        return (height, width) if orientation >= 5 else (width, height)


def read_encoded(path: Path) -> bytes:
    """An image file's content, read only if size and beginning are those of an image. Raises DecodeError, OSError."""
    states = path.stat()
    if not stat.S_ISREG(states.st_mode):
        raise DecodeError("not a file")  # reading a pipe or a device may never end
    if states.st_size > MAX_FILE_BYTES:
        raise DecodeError(f"too large: {states.st_size:,} bytes")
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
        _reader(beginning)
        # Not all that is allowed: a buffer of that size would be made for each file.
        return beginning + file.read(max(states.st_size - len(beginning), 0))


def resize(pixels: NDArray[np.uint8], *, size: int) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) as `decode` would size them: (size, size, 3)."""
    return np.array(_fit(Image.fromarray(pixels), size))


def _header(content: bytes, max_pixels: int) -> tuple[ImageFile.ImageFile, int]:
    """The opened image, of allowed size and not yet decompressed, and its EXIF orientation (1 to 8)."""
    image = _reader(content)(BytesIO(content))
    width, height = image.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise TooLarge(f"too large: {width}×{height} pixels")
    return image, _orientation(image, content)


def _reader(content: bytes) -> Callable[[BytesIO], ImageFile.ImageFile]:
    """What reads content that begins so. Raises DecodeError."""
    if not content:
        raise DecodeError("empty file")
    reader = next((reader for magic, reader in READERS if content.startswith(magic)), None)
    if reader is None:
        raise UnknownFormat("not an image")
    return reader


def _orientation(image: ImageFile.ImageFile, content: bytes) -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns these itself as it loads
    if image.format == "PNG":
        if "exif" not in image.info and b"eXIf" in content:
            image.load()  # the chunk may stand behind the pixels
        if not {"exif", "Raw profile type exif", "XML:com.adobe.xmp"} & image.info.keys():
            return 1  # getexif would decompress the whole image to look for it
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken EXIF block, of whichever kind, is no reason to lose the pixels
        return 1
    return orientation if orientation in UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0, posinf=255.0, neginf=0.0)
        if values.min() >= 0 and values.max() <= 1:
            values = values * 255
        return _gray(values)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _gray(np.asarray(image).astype(np.float64) / 257)  # 65535 / 257 = 255
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, WHITE)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")


def _gray(values: NDArray[np.floating]) -> Image.Image:
    """Values on the scale 0..255 as an RGB image of three equal channels."""
    return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8)).convert("RGB")


def _resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) with the shorter side at `side`."""
    width, height = size
    return max(side, side * width // min(size)), max(side, side * height // min(size))


def _fit(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    if width == height == side:
        return image
    if max(image.size) > 4 * min(image.size):
        # A 1×30,000 strip would become 64×1,920,000; beyond 4:1 the ends are far outside the filter's reach.
        image = _centre(image, min(width, 4 * height), min(height, 4 * width))
    image = image.resize(_resized(image.size, side), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
    return _centre(image, side, side)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever a reader raises, as a DecodeError with a reason in a few words."""
    try:
        yield
    except DecodeError:
        raise
    except MemoryError:
        raise TooLarge("too large for the memory that is free") from None
    except (EOFError, struct.error, IndexError):
        raise DecodeError("truncated image") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged input
        raise DecodeError("truncated image" if "truncated" in str(error).lower() else "damaged image") from None


_quiet_lock, _quiet_stack = threading.Lock(), ExitStack()
_quiet_depth = 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings about odd files to itself, in any number of threads.

    `catch_warnings` restores what it found, so entering it from several threads can leave the filter behind for
    ever; here the first one in sets it and the last one out restores it.
    """
    global _quiet_depth
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            _quiet_stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_stack.close()
