"""What a report is made from and made of: a run with its findings; and words, numbers and pictures before they have a
look. All words are plain text: the template prints them as they are, whatever they hold.

Pictures are vectors whose text stays text: Typst sets it in the font of the page, so it is sharp and can be searched.
Matplotlib lays it out in STIX, whose widths are close to those of Libertinus, which is inside the compiler.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucidate.analysis.dataset import ClassDistribution
from lucidate.analysis.findings import Findings
from lucidate.analysis.heatmaps import Heatmaps
from lucidate.analysis.per_class import PerClassAccuracy, TrueClassProbability
from lucidate.analysis.studies import LevelsTable
from lucidate.core.records import RunCard
from lucidate.core.registry import ENSEMBLE, TIMM
from lucidate.report.figures.catalog import FIGURES
from lucidate.report.figures.comparison import LEVELS
from lucidate.report.figures.entry import FigureEntry, Info
from lucidate.report.figures.frame import StaticStyle
from lucidate.report.sprites import fit
from lucidate.report.theme import short_names

FULL, HALF = 6.54, 3.15  # inches: the page's column, and half of it less the gap
TYPE = "Libertinus Serif"  # of the page
LAYOUT_TYPE = ("STIXGeneral", "DejaVu Sans")  # both come with Matplotlib, so pages are alike on every machine
PADDING = (0.07, 0.02)  # inches; letters of the page are a little wider
RASTER_DPI = 300
JPEG_QUALITY = 88  # of a tile: 3 KB, where lossless takes 15
NAME_LIMIT = 16  # characters of a class where half of the page's width is all there is
MOST_ROWS = 20  # classes in a chart or a table: what fits beside another on a page
_FAMILY = re.compile(rb"(font(?:-family)?:[^;\"]*?)'?STIXGeneral'?")  # Matplotlib's versions write either property


@dataclass(frozen=True, eq=False)
class ReportData:
    """A run card, what was found in one split of it, and its images.

    split: the one that the findings speak of. pixels: (N, H, W, 3) uint8 packed store, may be memory-mapped;
    None: the report is to show none of them.
    levels: where the run is part of them. heatmaps: where `explain` has made them.
    """

    card: RunCard
    findings: Findings
    split: str
    pixels: NDArray[np.uint8] | None
    levels: LevelsTable | None = None
    heatmaps: Heatmaps | None = None

    @property
    def classes(self) -> int:
        return len(self.card.classes)

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3): one image of the store, which the report must be allowed to show."""
        assert self.pixels is not None
        return np.asarray(self.pixels[index])

    @property
    def model(self) -> str:
        """What the model is called."""
        return self.card.model.name.removeprefix(TIMM)

    @property
    def ensemble(self) -> bool:
        return self.card.recipe.model.name == ENSEMBLE


@dataclass(frozen=True)
class Picture:
    """content: bytes of an SVG, PNG or JPEG file, which `suffix` names. alt: what it shows, in words."""

    content: bytes
    suffix: str
    alt: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    points: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Labels and what stands behind them; the values of `literal` labels are set as a machine would write them."""

    facts: tuple[tuple[str, str], ...]
    literal: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """Rows of cells; what follows a newline in a cell is set small below it.

    align: "l" or "r" a column. wide: the column that takes the room that is left. indented: rows that belong to the
    row above them. note: what is not in the table, plainly.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    wide: int = 0
    indented: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture under the sentence that it proves. note: how to read it."""

    caption: str
    picture: Picture
    note: str = ""


@dataclass(frozen=True)
class Tile:
    """An image and the two lines under it; `wrong` colors the second."""

    picture: Picture
    first: str = ""
    second: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Tiles:
    """Images in rows of `columns`; an empty cell is None. row_labels: one a row, or none at all."""

    caption: str
    tiles: tuple[Tile | None, ...]
    columns: int
    row_labels: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Beside:
    """Two figures or tables next to each other. share: of the width, the left one's."""

    left: Figure | Table
    right: Figure | Table
    share: float = 0.5


Block = str | Points | Facts | Table | Figure | Tiles | Beside  # text is a paragraph


@dataclass(frozen=True)
class Chapter:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class KeyNumber:
    """A number that a reader should keep: value, what it is, and what it must be read with."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """The whole of it. answer: the finding in one sentence."""

    title: str
    answer: str
    numbers: tuple[KeyNumber, ...]
    short: Points
    chapters: tuple[Chapter, ...]


def entry_of(question: str) -> FigureEntry:
    """The gallery's figure of a question of `Findings`, or that of the levels."""
    return next(entry for entry in (*FIGURES, LEVELS) if entry.question == question)


def drawn(
    question: str,
    info: Info,
    caption: str,
    *,
    width: float = FULL,
    height: float | None = None,
    note: str | None = None,
) -> Figure:
    """A figure of the gallery as SVG under another sentence.

    width, height: inches; height None: what it needs. note: how to read it; None: what the gallery says.
    """
    entry = entry_of(question)
    style = StaticStyle(width, height, LAYOUT_TYPE, PADDING, printed=True)
    settings = {"font.family": list(LAYOUT_TYPE), "svg.fonttype": "none", "svg.hashsalt": "lucidate"}
    buffer = BytesIO()
    with mpl.rc_context(settings), warnings.catch_warnings():  # type: ignore[arg-type]
        # Letters that Matplotlib's fonts lack get a rough width here; Typst sets them in whichever font has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = entry.static(info, style=style)
        figure.savefig(buffer, format="svg", dpi=RASTER_DPI, metadata={"Date": None, "Creator": None})
    content = _FAMILY.sub(rb"\1'" + TYPE.encode() + b"'", buffer.getvalue())
    return Figure(caption, Picture(content, "svg", entry.title), entry.hint(info) if note is None else note)


def of_classes(
    question: str,
    info: ClassDistribution | PerClassAccuracy | TrueClassProbability,
    values: NDArray[Any],
    caption: str,
    *,
    which: str,
    most: int = MOST_ROWS,
    width: float = HALF,
    height: float = 0.0,
) -> Figure:
    """A chart of a row a class, of the classes of the lowest values (K,), in their own order and with short names.

    which: what its note calls them where there are more, such as "{} hardest". height: inches at least.
    """
    total = len(info.class_names)
    chosen = np.sort(np.argsort(values, kind="stable")[: min(most, int(np.isfinite(values).sum()))])
    arrays: Any = {name: value[..., chosen] for name, value in vars(info).items() if isinstance(value, np.ndarray)}
    names = tuple(short_names([info.class_names[k] for k in chosen], NAME_LIMIT))
    rows = len(chosen)
    note = f"The {which.format(rows)} of {total:,} classes; the gallery has all." if rows < total else ""
    height = max(height, rows_height(rows) + 0.2)  # with what stands above the rows
    shown: Info = replace(info, class_names=names, **arrays)
    return drawn(question, shown, caption, width=width, height=height, note=note)


def rows_height(rows: int) -> float:
    """Inches of a chart of so many rows."""
    return 0.5 + 0.19 * max(rows, 5)


def tile(image: NDArray[np.uint8], *, alt: str) -> Picture:
    """One image, (H, W, 3) uint8, as the gallery shows it: enlarged or reduced for display only."""
    buffer = BytesIO()
    Image.fromarray(fit(image)).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return Picture(buffer.getvalue(), "jpg", alt)


def machine(card: RunCard) -> str:
    """What the run was made on."""
    threads = f"{card.threads} thread{'' if card.threads == 1 else 's'}"
    where = card.hardware.get("accelerator") or f"{card.hardware.get('processor', 'unknown processor')}, {threads}"
    return f"{where}, {card.processes} processes" if card.processes > 1 else str(where)


def plain(value: Any) -> str:
    """A setting as it is said: 0.25, "48, 128, 192", yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
