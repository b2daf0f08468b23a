"""Build the gallery's folder: pages, pictures, sprites, tables, one copy of plotly.js."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.offline
from numpy.typing import NDArray

from lucidate.analysis.findings import Findings
from lucidate.core.atomic import atomic_path
from lucidate.core.errors import PredictionsError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import Predictions, slug
from lucidate.report import theme
from lucidate.report.figures.catalog import FEW, FigureEntry, Info, figures_of
from lucidate.report.site import pages, png
from lucidate.report.site.index import index_page
from lucidate.report.site.tables import Table
from lucidate.report.sprites import Sheet


@dataclass(frozen=True)
class About:
    """What the first page says of the run, in words meant for people.

    title: the data set; model: the model's name. facts: (label, value) pairs. notes: caveats, shown plainly.
    """

    title: str
    model: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def build_gallery(
    folder: Path,
    predictions: Predictions,
    findings: Findings,
    pixels: NDArray[np.uint8],
    *,
    about: About,
    more: Callable[[Path], pages.Card] | None = None,
    reporter: Reporter = Silent(),  # noqa: B008 (stateless)
) -> Path:
    """Write the gallery to `folder`, replacing the one that stood there, and return its index.html.

    pixels: (N, H, W, 3) uint8 packed store, may be memory-mapped; row = index of predictions and findings.
    more: writes one more page into the new site, and returns its card for the first page.
    The same arguments give the same bytes. The folder is complete or not there: it is written aside and swapped in.
    Raises PredictionsError where pixels are not the images that the predictions speak of.
    """
    check_pixels(pixels, predictions.index)
    asked = figures_of(findings)
    with new_site(folder) as site:
        cards = write_figures(site, asked, pixels, dataset=predictions.dataset, task="gallery", reporter=reporter)
        for place, card in enumerate(cards):
            tables = [Table(card.title, card.name, asked[place][1].frame())]
            if asked[place][0].question == "per_class_accuracy":
                report = findings.classification_report
                tables.append(Table("Classification report", f"{card.name}_report", report.frame()))
            if asked[place][0].question == "misclassified" and 0 < findings.summary.errors <= FEW:
                pairs = findings.top_confusions.frame()
                tables.append(Table("Confusions", f"{slug(predictions.dataset)}_top_confusions", pairs))
            write_tables(site, tables)
            page = pages.figure_page(cards, place, tables=tables, about_title=about.title)
            write_text(site / "docs" / f"{card.name}.html", page)
        if more:
            cards.append(more(site))
        index = index_page(cards, findings, title=about.title, model=about.model, facts=about.facts, notes=about.notes)
        write_text(site / "index.html", index)
    reporter.advance("gallery", len(asked), len(asked))
    return folder / "index.html"


def check_pixels(pixels: NDArray[np.uint8], index: NDArray[np.int64]) -> None:
    """Refuse pixels that cannot be the images of these rows. Raises PredictionsError."""
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or len(pixels) <= index.max(initial=-1):
        raise PredictionsError(
            f"pixels: expected uint8 images of shape (N, H, W, 3), N above {index.max(initial=-1)}, "
            f"received {pixels.dtype} of shape {pixels.shape}"
        )


@contextmanager
def new_site(folder: Path) -> Iterator[Path]:
    """A site with what all pages share and no page: written aside, swapped in where the block raises nothing."""
    with atomic_path(folder) as site:
        for part in ("docs", "plots", "assets/data", "assets/sprites", "assets/csv"):
            (site / part).mkdir(parents=True)
        _write_assets(site)
        yield site


def write_figures(
    site: Path,
    asked: Sequence[tuple[FigureEntry, Info]],
    pixels: NDArray[np.uint8],
    *,
    dataset: str,
    task: str,
    reporter: Reporter,
) -> list[pages.Card]:
    """Draw each info by its entry, interactive and still, and return their cards. task: what the reporter is told."""
    cards: list[pages.Card] = []
    for done, (entry, info) in enumerate(asked):
        reporter.advance(task, done, len(asked), entry.title)
        cards.append(_write_figure(site, entry, info, pixels, name=entry.name(slug(dataset))))
    return cards


def write_tables(site: Path, tables: Sequence[Table]) -> None:
    """Each as a CSV file by its name."""
    for table in tables:
        (site / "assets/csv" / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8", newline="")


def write_text(path: Path, text: str) -> None:
    """The same bytes on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


def _write_assets(site: Path) -> None:
    """What all pages share."""
    assets = resources.files("lucidate.report.site") / "assets"
    style = theme.css_variables() + (assets / "gallery.css").read_text(encoding="utf-8")
    write_text(site / "assets/gallery.css", style)
    (site / "assets/gallery.js").write_bytes((assets / "gallery.js").read_bytes())
    write_text(site / "assets/plotly.min.js", plotly.offline.get_plotlyjs())
    (site / ".nojekyll").touch()  # GitHub Pages would otherwise run its own generator over the folder


def _write_figure(site: Path, entry: FigureEntry, info: Info, pixels: NDArray[np.uint8], *, name: str) -> pages.Card:
    """Draw one figure both ways; write its sprite, data and picture."""
    board = entry.board(info) if entry.board else None
    sheet = entry.sheet(info, pixels, url=f"../assets/sprites/{name}-001.webp")
    if sheet:
        (site / "assets/sprites" / f"{name}-001.webp").write_bytes(sheet.encoded())
    data = page_data(entry.interactive(info, sheet), sheet, title=entry.title)
    (site / "assets/data" / f"{name}.js").write_text(data, encoding="ascii", newline="\n")
    picture, size = png.png(entry.still(info, sheet), photographs=sheet is not None)
    (site / "plots" / f"{name}.png").write_bytes(picture)
    return pages.Card(
        name=name,
        title=entry.title,
        group=entry.group,
        headline=info.headline,
        kind=entry.kind if sheet or entry.kind != "grid" else "chart",  # an empty grid is a sentence
        question=entry.question,
        size=size,
        sheet=sheet,
        note=entry.note(info) if entry.note else "",
        left_out=board.left_out if board else 0,
    )


def page_data(figure: go.Figure, sheet: Sheet | None, *, title: str) -> str:
    """A page's data as a script, since a page opened from a disk may not fetch files.

    `lucidate.page({title, figure: {data, layout}, dark, sprite})`. dark: light color → dark color. sprite: None, or
    {sheet, columns, tile, gap: [x, y], ids}: the cell n of `sheet` (relative to docs/) has its upper left corner at
    ((n % columns) * (tile + gap[0]), floor(n / columns) * (tile + gap[1])) and shows the image ids[n], or none if null.
    """
    content: dict[str, Any] = {
        "title": title,
        "figure": figure.to_plotly_json(),
        "dark": theme.dark_of_light(),
        "sprite": sheet.address() if sheet else None,
    }
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = text.replace("</", "<\\/")  # as it must be if the script is ever put inline
    return f"lucidate.page({safe});\n"
