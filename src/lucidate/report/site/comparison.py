"""The page of a comparison: a static site like the gallery, of two models on the same images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lucidate.analysis.comparison import Comparison, Flips
from lucidate.analysis.formatting import count, images, interval, p_value, percent, points, points_interval
from lucidate.core.alignment import rows_of
from lucidate.core.errors import PredictionsError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard
from lucidate.data.pack import Pack
from lucidate.report.figures import comparison
from lucidate.report.figures.entry import FigureEntry, Info
from lucidate.report.labels import short_names
from lucidate.report.site import site
from lucidate.report.site.pages import Card, Table, write_figure_page, write_page

TEASERS = 16  # images of each kind on the first page: two rows on a wide screen
TEASER_NAME = 12  # characters of a class under one of them, beside the confidence

CHANGE = FigureEntry(
    "per_class_change",
    comparison.TITLE,
    "Classes",
    "classes",
    draw_plotly=comparison.draw_plotly,
    draw_matplotlib=comparison.draw_matplotlib,
    note=comparison.note,
)
FIXED = FigureEntry(
    "fixed", "Fixed: A was wrong, B is right", "Images that flipped", "fixed", "grid", grid=comparison.flips_grid
)
BROKEN = FigureEntry(
    "broken", "Broken: A was right, B is wrong", "Images that flipped", "broken", "grid", grid=comparison.flips_grid
)


def describe(card: RunCard | None) -> str:
    """What a run card says of its model, in a line; None: predictions that came without a run."""
    if card is None:
        return "a table of predictions"
    if card.origin:
        return f"{card.model.name}, {card.model.parameters:,} parameters, from elsewhere"
    epochs = f", {count(card.results.epochs, 'epoch')}" if card.results.epochs else ""
    return f"{card.model.name}, {card.model.parameters:,} parameters{epochs}, seed {card.seed}"


def build_comparison(
    folder: Path,
    compared: Comparison,
    pack: Pack,
    *,
    about: tuple[str, str],
    reporter: Reporter = Silent(),  # noqa: B008 (stateless)
) -> Path:
    """Write the comparison's site to `folder`, replacing the one that stood there, and return its index.html.

    pack: holds the images, found by their ids. about: each of the two models in a line. The same arguments give the
    same bytes, and the folder is complete or not there.
    Raises PredictionsError where the pack lacks an image, or knows it by another class.
    """
    fixed, broken = (_located(flips, pack) for flips in (compared.fixed, compared.broken))
    asked: list[tuple[FigureEntry, Info]] = [(CHANGE, compared.classes), (FIXED, fixed), (BROKEN, broken)]
    title = " vs. ".join(compared.names)
    with site.new_site(folder, style="compare.css") as new:
        cards = site.write_figures(
            new, asked, pack.images, dataset=compared.dataset, task="comparison", reporter=reporter
        )
        tables = [Table(card.title, card.name, info.frame()) for card, (_, info) in zip(cards, asked, strict=True)]
        site.write_tables(new, [*tables, Table("Comparison", "comparison", compared.frame())])
        flipped = cards[1:]  # the chart stands on the first page
        for number in range(len(flipped)):
            write_figure_page(new, flipped, number, tables=[tables[number + 1]], title=title, kind="comparison")
        both = f"{count(compared.both_right)} are right in both and {count(compared.both_wrong)} wrong in both"
        write_page(
            new / "index.html",
            "comparison.html",
            title=f"{title} – lucidate",
            description=compared.headline,
            content={
                "drawn": cards[0],
                "style": "compare.css",
                "compared": compared,
                "metrics": _metrics(compared),
                "tables": tables[:1],
                "agreement": f"Of {images(compared.images, compared.split)} {both}; of these, "
                f"{compared.changed_wrong:,} are given two different wrong answers.",
                "flips": [_teaser(*part) for part in zip(flipped, (fixed, broken), strict=True)],
                "facts": _facts(compared, about),
                "notes": _notes(compared),
            },
        )
    reporter.advance("comparison", len(asked), len(asked))
    return folder / "index.html"


def _located(flips: Flips, pack: Pack) -> Flips:
    """The same flips, the rows of their images looked up in this store by id."""
    if not len(flips):
        return flips
    tiles = flips.first
    rows = rows_of(pack.ids, tiles.ids)
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        raise PredictionsError(
            f"images: expected those that the predictions speak of, received {pack.source} without "
            f"{str(tiles.ids[missing[0]])!r} ({missing.size:,} missing)"
        )
    theirs = np.array(pack.class_names)[pack.labels[rows]]
    ours = np.array(tiles.class_names)[tiles.labels]
    other = np.flatnonzero(theirs != ours)
    if other.size:
        image, true, given = (str(values[other[0]]) for values in (tiles.ids, ours, theirs))
        raise PredictionsError(
            f"images: expected {image!r} of {pack.source} to be {true!r}, as in the predictions, received {given!r} "
            f"({other.size:,} differ); are these the images that were predicted?"
        )
    return replace(flips, first=replace(tiles, index=rows), second=replace(flips.second, index=rows))


def _metrics(compared: Comparison) -> list[dict[str, Any]]:
    """Both accuracies, their difference and the flips, each leading to its part of the page."""
    accuracies = [
        {
            "letter": letter,
            "label": side.name,
            "value": percent(side.accuracy),
            "note": interval(side.low, side.high),
            "href": "#agreement",
        }
        for letter, side in (("A", compared.first), ("B", compared.second))
    ]
    flipped = f"{len(compared.fixed):,} fixed, {len(compared.broken):,} broken"
    others = (
        ("B less A", points(compared.difference), points_interval(compared.low, compared.high), "#classes"),
        ("Images that flipped", flipped, f"McNemar {p_value(compared.mcnemar_p)}", "#fixed"),
    )
    return accuracies + [
        {"label": label, "value": value, "note": note, "href": href, "long": href == "#fixed"}
        for label, value, note, href in others
    ]


def _teaser(card: Card, flips: Flips) -> dict[str, Any]:
    """The first of the flipped images, cut from their own page's sprite."""
    names, short = flips.first.class_names, short_names(flips.first.class_names, TEASER_NAME)
    shown = []
    for tile in range(min(len(flips), TEASERS)):
        true, answers = flips.first.labels[tile], []
        for letter, tiles in (("A", flips.first), ("B", flips.second)):
            said = tiles.predicted[tile]
            kind, sure = "right" if said == true else "wrong", percent(tiles.confidence[tile])
            answers.append({"letter": letter, "name": names[said], "said": short[said], "kind": kind, "sure": sure})
        both = " and for ".join(f"{answer['name']} by {answer['letter']}" for answer in answers)
        shown.append({"label": f"{names[true]}, taken for {both}", "true": short[true], "answers": answers})
    more = f"See all {len(flips):,}" if len(flips) > TEASERS else "Look closer"
    return {"card": card, "tiles": shown, "more": more}


def _facts(compared: Comparison, about: tuple[str, str]) -> list[tuple[str, str]]:
    return [
        (f"A: {compared.first.name}", about[0]),
        (f"B: {compared.second.name}", about[1]),
        ("Images", f"{images(compared.images, compared.split)} of {compared.dataset}, joined by their ids"),
        ("Order of the images", "largest change of the true class's probability first"),
        ("Intervals", "95 %: Wilson's for an accuracy, Bonett and Price's for a difference on the same images"),
        ("Test", "McNemar's, exact and two-sided"),
    ]


def _notes(compared: Comparison) -> list[str]:
    return [
        f"{count(number, 'image')} that only {name} answered {'is' if number == 1 else 'are'} left out."
        for name, number in zip(compared.names, compared.left_out, strict=True)
        if number
    ]
