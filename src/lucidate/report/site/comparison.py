"""The pages that set models side by side: two of them on the same images, and the levels of a challenge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lucidate.analysis.comparison import Comparison, Flips
from lucidate.analysis.formatting import count, images, interval, p_value, percent, points, points_interval
from lucidate.analysis.studies import Level, LevelsTable
from lucidate.core.alignment import rows_of
from lucidate.core.errors import PredictionsError
from lucidate.core.progress import Reporter
from lucidate.core.records import RunCard
from lucidate.data.pack import Pack
from lucidate.report.figures.comparison import BROKEN, CHANGES, FIXED, LEVELS
from lucidate.report.figures.entry import FigureEntry, Info
from lucidate.report.site import site
from lucidate.report.site.pages import Card, Metric, Table, write_figure_page, write_page
from lucidate.report.theme import short_names

STYLE = "compare.css"
TEASERS = 16  # images of each kind on the first page: two rows on a wide screen
TEASER_NAME = 12  # characters of a class under one of them, beside the confidence


def describe(card: RunCard | None) -> str:
    """What a run card says of its model, in a line; None: predictions that came without a run."""
    if card is None:
        return "a table of predictions"
    if card.origin:
        return f"{card.model.name}, {card.model.parameters:,} parameters, from elsewhere"
    epochs = f", {count(card.results.epochs, 'epoch')}" if card.results.epochs else ""
    return f"{card.model.name}, {card.model.parameters:,} parameters{epochs}, seed {card.seed}"


def build_comparison(
    folder: Path, compared: Comparison, pack: Pack, *, about: tuple[str, str], reporter: Reporter | None = None
) -> Path:
    """Write the comparison's site to `folder`, replacing the one that stood there, and return its index.html.

    pack: holds the images, found by their ids. about: each of the two models in a line. The same arguments give the
    same bytes, and the folder is complete or not there.
    Raises PredictionsError where the pack lacks an image, or knows it by another class.
    """
    fixed, broken = (_located(flips, pack) for flips in (compared.fixed, compared.broken))
    asked: list[tuple[FigureEntry, Info]] = [(CHANGES, compared.classes), (FIXED, fixed), (BROKEN, broken)]
    title = " vs. ".join(compared.names)
    with site.new_site(folder, style=STYLE) as new:
        cards = site.write_figures(
            new, asked, pack.images, dataset=compared.dataset, task="comparison", reporter=reporter
        )
        tables = [Table(card.title, card.name, info.frame()) for card, (_, info) in zip(cards, asked, strict=True)]
        site.write_tables(new, [*tables, Table("Comparison", "comparison", compared.frame())])
        flipped = cards[1:]  # the chart stands on the first page
        for number in range(len(flipped)):
            write_figure_page(new, flipped, number, tables=[tables[number + 1]], title=title, kind="comparison")
        facts = (
            (f"A: {compared.first.name}", about[0]),
            (f"B: {compared.second.name}", about[1]),
            ("Images", f"{images(compared.images, compared.split)} of {compared.dataset}, joined by their ids"),
            ("Order of the images", "largest change of the true class's probability first"),
            ("Intervals", "95 %: Wilson's for an accuracy, Bonett and Price's for a difference on the same images"),
            ("Test", "McNemar's, exact and two-sided"),
        )
        notes = [
            f"{count(number, 'image')} that only {name} answered {'is' if number == 1 else 'are'} left out."
            for name, number in zip(compared.names, compared.left_out, strict=True)
            if number
        ]
        both = f"{count(compared.both_right)} are right in both and {count(compared.both_wrong)} wrong in both"
        content = {
            "drawn": cards[0],
            "style": STYLE,
            "compared": compared,
            "metrics": _metrics(compared),
            "tables": tables[:1],
            "agreement": f"Of {images(compared.images, compared.split)} {both}; of these, "
            f"{compared.changed_wrong:,} are given two different wrong answers.",
            "flips": [_teaser(*part) for part in zip(flipped, (fixed, broken), strict=True)],
            "facts": facts,
            "notes": notes,
        }
        page = new / "index.html"
        write_page(page, "comparison.html", title=f"{title} – lucidate", description=compared.headline, content=content)
    return folder / "index.html"


def _located(flips: Flips, pack: Pack) -> Flips:
    """The same flips, the rows of their images looked up in this store by id."""
    tiles = flips.first
    rows = rows_of(pack.ids, tiles.ids)
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        raise PredictionsError(
            f"images: expected those that the predictions speak of, received {pack.source} without "
            f"{str(tiles.ids[missing[0]])!r} ({missing.size:,} missing)"
        )
    theirs, ours = np.array(pack.class_names)[pack.labels[rows]], np.array(tiles.class_names)[tiles.labels]
    other = np.flatnonzero(theirs != ours)
    if other.size:
        image, true, given = (str(values[other[0]]) for values in (tiles.ids, ours, theirs))
        raise PredictionsError(
            f"images: expected {image!r} of {pack.source} to be {true!r}, as in the predictions, received {given!r} "
            f"({other.size:,} differ); are these the images that were predicted?"
        )
    return replace(flips, first=replace(tiles, index=rows), second=replace(flips.second, index=rows))


def _metrics(compared: Comparison) -> list[Metric]:
    """Both accuracies, their difference and the flips, each leading to its part of the page."""
    a, b = (
        Metric(side.name, percent(side.accuracy), interval(side.low, side.high), "#agreement", letter=letter)
        for letter, side in (("A", compared.first), ("B", compared.second))
    )
    flipped = f"{len(compared.fixed):,} fixed, {len(compared.broken):,} broken"
    difference = points(compared.difference), points_interval(compared.low, compared.high)
    flips = Metric(FIXED.group, flipped, f"McNemar {p_value(compared.mcnemar_p)}", "#fixed", long=True)
    return [a, b, Metric("B less A", *difference, "#classes"), flips]


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


HEADS = ("Level", "Model", "Parameters", "Validation", "Test", "Change", "Training", "Images/s")


def levels_site(folder: Path, table: LevelsTable, *, title: str) -> Path:
    """Write the page of a challenge to `folder`, replacing what stood there, and return its index.html.

    Each level's row leads to the gallery of its run, `../RUN/gallery/`, where that is written. title: the data set.
    """
    with site.new_site(folder, style=STYLE) as new:
        nothing = np.zeros((0, 1, 1, 3), np.uint8)  # a chart shows no images
        (card,) = site.write_figures(new, [(LEVELS, table)], nothing, dataset=title, task="levels")
        numbers = Table("Levels", "levels", table.frame())
        site.write_tables(new, [numbers])
        rows = [
            _row(row, folder, member=number > 0)
            for level in table.levels
            for number, row in enumerate((level, *level.members))
        ]
        content = {"drawn": card, "style": STYLE, "dataset": title, "tables": [numbers], "heads": HEADS}
        content |= {"rows": rows, "notes": table.notes}
        heading = f"{title}: levels – lucidate"
        write_page(new / "index.html", "levels.html", title=heading, description=table.headline, content=content)
    return folder / "index.html"


def _row(level: Level, folder: Path, *, member: bool) -> dict[str, Any]:
    """A row of the page's table; a cell is a value with a note below it, and what hovering tells."""
    gallery = f"{level.run}/gallery/index.html"
    change = ("",) if level.change is None or level.p is None else (points(level.change), p_value(level.p))
    cells = (
        (level.model, level.origin),
        (f"{level.parameters:,}",),
        (percent(level.val_accuracy), interval(level.val_low, level.val_high), images(level.val_images, "validation")),
        (percent(level.test_accuracy), interval(level.test_low, level.test_high), images(level.test_images, "test")),
        change,
        (f"{level.seconds / 60:.1f} min" if level.seconds >= 60 else f"{level.seconds:.0f} s",),
        (f"{level.images_per_second:,.0f}" if level.images_per_second else "",),
    )
    return {
        "name": f"member: {level.model}" if member else f"{level.level} · {level.title}",
        "href": f"../{gallery}" if (folder.parent / gallery).exists() else "",
        "member": member,
        "cells": [dict(zip(("value", "note", "title"), cell, strict=False)) for cell in cells],
    }
