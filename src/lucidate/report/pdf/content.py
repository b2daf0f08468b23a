"""What the report says, block by block, before it has a look: words, numbers and pictures.

All words are plain text. The template prints them as they are, whatever they hold.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """content: bytes of an SVG, PNG or JPEG file, which `suffix` names. alt: what it shows, in words."""

    content: bytes
    suffix: str
    alt: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    words: str


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


Block = Paragraph | Points | Facts | Table | Figure | Tiles | Beside


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
    """The whole of it. answer: the finding in one sentence. footer: what every page repeats."""

    title: str
    answer: str
    numbers: tuple[KeyNumber, ...]
    short: Points
    chapters: tuple[Chapter, ...]
    footer: str
