"""The report's figures as vector pictures in its type, and images as tiles.

Text stays text: Typst sets it in the font of the page, so it is sharp and can be searched. Matplotlib lays it out in
STIX, whose widths are close to those of Libertinus; it has no access to the latter, which is inside the compiler.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from io import BytesIO
from typing import TypeVar

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucidate.analysis.confusion import TopConfusions
from lucidate.analysis.dataset import ClassDistribution
from lucidate.analysis.per_class import PerClassAccuracy, TrueClassProbability
from lucidate.analysis.samples import Misclassified
from lucidate.report.figures.catalog import FIGURES
from lucidate.report.figures.entry import FigureEntry
from lucidate.report.figures.frame import StaticDrawing, StaticStyle
from lucidate.report.labels import short_names
from lucidate.report.pdf.content import Picture
from lucidate.report.sprites import fit

FULL, HALF = 6.54, 3.15  # inches: the page's column, and half of it less the gap
TYPE = "Libertinus Serif"  # of the page
LAYOUT_TYPE = ("STIXGeneral", "DejaVu Sans")  # both come with Matplotlib, so pages are alike on every machine
PADDING = (0.07, 0.02)  # inches; letters of the page are a little wider
RASTER_DPI = 300
JPEG_QUALITY = 88  # of a tile: 3 KB, where lossless takes 15
NAME_LIMIT = 16  # characters of a class where half of the page's width is all there is
MOST_ROWS = 20  # classes in a chart or a table: what fits beside another on a page
_FAMILY = re.compile(rb"(font(?:-family)?:[^;\"]*?)'?STIXGeneral'?")  # Matplotlib's versions write either property
Drawn = TypeVar("Drawn")


def entry_of(question: str) -> FigureEntry:
    """The gallery's figure of a question of `Findings`."""
    return next(entry for entry in FIGURES if entry.question == question)


def vector(draw: StaticDrawing[Drawn], info: Drawn, *, width: float, alt: str, height: float | None = None) -> Picture:
    """An Info's Matplotlib drawing as SVG, without its title, which the caption replaces.

    width, height: inches; height None: what the drawing needs by itself.
    """
    style = StaticStyle(width, height, LAYOUT_TYPE, PADDING, printed=True)
    settings = {"font.family": list(LAYOUT_TYPE), "svg.fonttype": "none", "svg.hashsalt": "lucidate"}
    buffer = BytesIO()
    with mpl.rc_context(settings), warnings.catch_warnings():  # type: ignore[arg-type]
        # Letters that Matplotlib's fonts lack get a rough width here; Typst sets them in whichever font has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        draw(info, style).savefig(buffer, format="svg", dpi=RASTER_DPI, metadata={"Date": None, "Creator": None})
    content = _FAMILY.sub(rb"\1'" + TYPE.encode() + b"'", buffer.getvalue())
    return Picture(content, "svg", alt)


def rows_height(rows: int, *, legend: bool = False) -> float:
    """Inches of a chart of one row a class."""
    return 0.5 + 0.19 * max(rows, 5) + (0.2 if legend else 0.0)


def tile(image: NDArray[np.uint8], *, alt: str) -> Picture:
    """One image, (H, W, 3) uint8, as the gallery shows it: enlarged or reduced for display only."""
    buffer = BytesIO()
    Image.fromarray(fit(image)).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return Picture(buffer.getvalue(), "jpg", alt)


def fewest_images(info: ClassDistribution, most: int = MOST_ROWS) -> ClassDistribution:
    """The classes with the fewest images, in their own order; all, where there are no more than `most`."""
    chosen = np.sort(np.argsort(info.counts.sum(axis=0), kind="stable")[:most])
    return replace(info, class_names=_names(info.class_names, chosen), counts=info.counts[:, chosen])


def hardest(info: PerClassAccuracy, most: int = MOST_ROWS) -> PerClassAccuracy:
    """The classes of the lowest accuracy, among those that have images."""
    chosen = np.argsort(info.accuracy, kind="stable")[: min(most, int((info.total > 0).sum()))]
    names, parts = _names(info.class_names, chosen), ("correct", "total", "low", "high")
    return replace(info, class_names=names, **{part: getattr(info, part)[chosen] for part in parts})


def least_probable(info: TrueClassProbability, most: int = MOST_ROWS) -> TrueClassProbability:
    """The classes that get the least probability on their own images, among those that have any."""
    chosen = np.argsort(info.mean, kind="stable")[: min(most, int(np.isfinite(info.mean).sum()))]
    names = _names(info.class_names, chosen)
    return replace(info, class_names=names, mean=info.mean[chosen], median=info.median[chosen])


def most_frequent(info: TopConfusions, most: int) -> TopConfusions:
    """The most frequent of the listed pairs."""
    chosen = np.argsort(-info.counts, kind="stable")[:most]
    return replace(info, true=info.true[chosen], predicted=info.predicted[chosen], counts=info.counts[chosen])


def fewer(info: Misclassified, most: int) -> Misclassified:
    """Evenly chosen ones of a sample of mistakes, which stands in the order of classes: so they show all of them."""
    if len(info.tiles) <= most:
        return info
    return replace(info, tiles=info.tiles.take(np.linspace(0, len(info.tiles) - 1, most).round().astype(np.int64)))


def _names(names: tuple[str, ...], chosen: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(short_names([names[k] for k in chosen.tolist()], NAME_LIMIT))
