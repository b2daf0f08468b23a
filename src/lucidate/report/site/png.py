"""Matplotlib figures as small PNG files."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lucidate.report import theme

COLORS = 192  # of a chart's palette
PHOTO_COLORS = 128  # fitted by k-means they miss the true ones less than 192 of a median cut, in fewer bytes
EVERY = 12  # pixels each way: one of 144 is enough to fit a palette to photographs, and takes a tenth of the time
APART = 8  # levels between these and the fitted ones
INKS = ("surface", "ink", "muted", "wrong")  # colors of a grid's lines and letters, which few pixels carry


def png(figure: Figure, *, photographs: bool = False) -> tuple[bytes, tuple[int, int]]:
    """The figure as a palette PNG, twice the size it is shown at, and that file's (width, height) in pixels.

    Written through Pillow: a tenth of the bytes of Matplotlib's own true-color files, and no date or version inside.
    """
    figure.set_dpi(theme.PNG_DPI)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # A class name in a script that no installed font has is drawn as boxes; the page beside it has the letters.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels[..., :3])
    buffer = BytesIO()
    if photographs:
        small = image.quantize(palette=_palette(pixels[..., :3]), dither=Image.Dither.NONE)
    else:
        small = image.quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    # What is left to gain above zlib's level 6 is 1 % of photographs, in thrice the time.
    small.save(buffer, "PNG", compress_level=6 if photographs else 9)
    return buffer.getvalue(), image.size


def _palette(pixels: NDArray[np.uint8]) -> Image.Image:
    """A palette for a grid of photographs; pixels: (H, W, 3)."""
    sample = pixels[EVERY // 2 :: EVERY, EVERY // 2 :: EVERY].reshape(-1, 3)
    inks = np.array([[round(255 * part) for part in to_rgb(getattr(theme.LIGHT, ink))] for ink in INKS], dtype=np.uint8)
    fitted = Image.fromarray(sample[None]).quantize(PHOTO_COLORS, method=Image.Quantize.MEDIANCUT, kmeans=1)
    colors = np.array(fitted.getpalette(), dtype=np.uint8).reshape(-1, 3)
    # Pillow finds the nearest color only roughly: one close to the page's white would tint the page.
    far = np.abs(colors[:, None].astype(np.int64) - inks).max(axis=2).min(axis=1) > APART
    colors = np.concatenate([inks, colors[far]])
    holder = Image.new("P", (1, 1))
    holder.putpalette(colors.tobytes())
    return holder
