"""Jinja2 templates → pages, and what pages know of figures and tables. All text from elsewhere is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lucidate.analysis.formatting import count
from lucidate.core.text import csv_of
from lucidate.report.sprites import Sprite
from lucidate.report.theme import escape

MAX_ROWS = 1_000  # of a table in a page; the CSV has all


class Metric(NamedTuple):
    """A number at the top of a first page, and where it leads. long: its value is words. letter: of a model."""

    label: str
    value: str
    note: str
    href: str
    long: bool = False
    letter: str = ""


@dataclass(frozen=True, eq=False)
class Card:
    """What the index and the neighbors of a page know of it.

    question: field of Findings that it answers. size: of its PNG, (width, height) in pixels. note: how to read the
    figure. left_out: images that the table has and the figure does not.
    """

    name: str
    title: str
    group: str
    headline: str
    kind: str
    question: str
    size: tuple[int, int]
    sprite: Sprite | None = None
    note: str = ""
    left_out: int = 0

    @property
    def width(self) -> int:
        """CSS pixels; the file has twice as many."""
        return self.size[0] // 2

    @property
    def height(self) -> int:
        return self.size[1] // 2

    @property
    def fit(self) -> str:
        """Of its preview: "whole", or "top" of tall pictures, which show their upper part."""
        wide = self.width > 1.6 * self.height and self.sprite is None
        return "whole" if wide or self.kind == "matrix" else "top"

    @property
    def hint(self) -> str:
        """How to use the figure; what was done to images to show them. Nothing is known here of a model's own size."""
        if self.sprite is None:
            return self.note
        more = f" {self.left_out:,} more {'is' if self.left_out == 1 else 'are'} in the table." if self.left_out else ""
        height, width = self.sprite.source
        size, stored = f"{width}×{height} pixels", "the size they are stored in"
        if max(height, width) < self.sprite.tile:
            scaled = f"Shown enlarged from {size}, {stored}, and gently sharpened; for display only."
        elif max(height, width) > self.sprite.tile:
            scaled = f"Shown reduced from {size}, {stored}; for display only."
        else:
            scaled = f"Shown as they are stored, in {size}."
        return f"Click a tile to look closer; arrow keys walk on from there.{more} {scaled}"


@dataclass(frozen=True, eq=False)
class Table:
    """A figure's numbers: as CSV for programs, in its page for people. name: of the CSV file, without the ending."""

    title: str
    name: str
    frame: pd.DataFrame

    def csv(self) -> str:
        """All rows, numbers in full precision; no cell is a formula to a spreadsheet."""
        return csv_of(self.frame)

    @property
    def size(self) -> str:
        """How many rows the page shows, in words; empty where there is none."""
        rows = len(self.frame)
        if rows > MAX_ROWS:
            return f"first {MAX_ROWS:,} of {rows:,} rows; the CSV has all"
        return count(rows, "row") if rows else ""

    @property
    def columns(self) -> list[tuple[str, Markup]]:
        """Heading and attributes of each column."""
        numeric = [pd.api.types.is_numeric_dtype(kind) for kind in self.frame.dtypes]
        names = (str(name).replace("_", " ") for name in self.frame.columns)
        return [(name, NUMBER if each else TEXT) for name, each in zip(names, numeric, strict=True)]

    def rows(self) -> Iterator[list[str]]:
        """The cells of the first 1,000 rows."""
        for row in self.frame.head(MAX_ROWS).itertuples(index=False, name=None):
            yield [_cell(value) for value in row]


NUMBER, TEXT = Markup(' class="number"'), Markup("")


def _cell(value: object) -> str:
    if isinstance(value, float):
        if value != value:
            return "–"
        short = f"{value:.4g}"
        return Markup("0.9999" if short == "1" and value < 1 else short)  # all but sure is not sure
    return Markup(f"{value:,}") if isinstance(value, int) else str(value)


def write_page(path: Path, template: str, *, title: str, description: str, content: Mapping[str, Any]) -> None:
    """Write a page, `index.html` of a site or one in its `docs/`; the same content gives the same bytes everywhere.

    content: what the template shows besides. Three entries are optional, for any template: drawn, the Card of the
    figure that the page draws; style, its own style sheet beside the common one; site_title, what its link to the
    first page says.
    """
    root = "" if path.name == "index.html" else "../"  # from the page to the site's first folder
    shared = {"title": title, "description": description, "root": root, "drawn": None, "style": "", "site_title": ""}
    page = _environment().get_template(template).render({**shared, **content})
    path.write_text(page, encoding="utf-8", newline="\n")


def write_figure_page(
    site: Path, cards: Sequence[Card], number: int, *, tables: Sequence[Table], title: str, kind: str = "gallery"
) -> None:
    """The page of one of the cards, with its neighbors and its numbers. title: of the site. kind: what the site is."""
    card, content = cards[number], {"cards": cards, "number": number, "tables": tables, "kind": kind}
    write_page(
        site / "docs" / f"{card.name}.html",
        "figure.html",
        title=f"{card.title} – {title}",
        description=card.headline,
        content={**content, "drawn": card, "site_title": f"{title} {kind}"},
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lucidate.report.site"),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["words"] = words
    environment.filters["number"] = "{:,}".format
    return environment


def _harmless(value: Any) -> Any:
    """What a template prints: text escaped, characters that would be unseen or reorder the page named."""
    return Markup(escape(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def words(text: str) -> Markup:
    """Words as HTML, a number and its percent sign kept on one line."""
    return Markup(escape(text).replace(" %", "\N{NO-BREAK SPACE}%"))
