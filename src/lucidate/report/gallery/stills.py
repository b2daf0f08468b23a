"""Matplotlib figures as small PNG files."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lucidate.report import theme

COLORS = 192  # of the palette: photographs at 256 weigh a fifth more and look no better


def png(figure: Figure) -> tuple[bytes, tuple[int, int]]:
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
    small = image.quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), image.size
