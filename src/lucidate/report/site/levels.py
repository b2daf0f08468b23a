"""The page of a challenge: its levels in one figure and one table, each leading to its own gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lucidate.analysis.formatting import images, interval, p_value, percent, points
from lucidate.analysis.levels import Level, LevelsTable
from lucidate.core.progress import Silent
from lucidate.report.figures import levels
from lucidate.report.figures.entry import FigureEntry
from lucidate.report.site import site
from lucidate.report.site.pages import Table, write_page

FIGURE = FigureEntry(
    "levels",
    levels.TITLE,
    "Levels",
    "levels",
    draw_plotly=levels.draw_plotly,
    draw_matplotlib=levels.draw_matplotlib,
    note=levels.note,
)
HEADS = ("Level", "Model", "Parameters", "Validation", "Test", "Change", "Training", "Images/s")


def levels_site(folder: Path, table: LevelsTable, *, title: str) -> Path:
    """Write the page to `folder`, replacing what stood there, and return its index.html.

    Each level's row leads to the gallery of its run, `../RUN/gallery/`, where that is written. title: the data set.
    """
    with site.new_site(folder, style="compare.css") as new:
        nothing = np.zeros((0, 1, 1, 3), np.uint8)  # a chart shows no images
        (card,) = site.write_figures(new, [(FIGURE, table)], nothing, dataset=title, task="levels", reporter=Silent())
        numbers = Table("Levels", "levels", table.frame())
        site.write_tables(new, [numbers])
        write_page(
            new / "index.html",
            "levels.html",
            title=f"{title}: levels – lucidate",
            description=table.headline,
            content={
                "drawn": card,
                "style": "compare.css",
                "dataset": title,
                "tables": [numbers],
                "heads": HEADS,
                "rows": [
                    _row(row, folder, member=number > 0)
                    for level in table.levels
                    for number, row in enumerate((level, *level.members))
                ],
                "notes": table.notes,
            },
        )
    return folder / "index.html"


def _row(level: Level, folder: Path, *, member: bool) -> dict[str, Any]:
    """A row of the page's table; a cell is a value with a note below it."""
    gallery = f"{level.run}/gallery/index.html"
    change = None if level.change is None or level.p is None else (points(level.change), p_value(level.p))
    cells = (
        (level.model, level.origin),
        (f"{level.parameters:,}",),
        (percent(level.val_accuracy), interval(level.val_low, level.val_high), images(level.val_images, "validation")),
        (percent(level.test_accuracy), interval(level.test_low, level.test_high), images(level.test_images, "test")),
        change or ("",),
        (f"{level.seconds / 60:.1f} min" if level.seconds >= 60 else f"{level.seconds:.0f} s",),
        (f"{level.images_per_second:,.0f}" if level.images_per_second else "",),
    )
    return {
        "name": f"member: {level.model}" if member else f"{level.level} · {level.title}",
        "href": f"../{gallery}" if (folder.parent / gallery).exists() else "",
        "member": member,
        "cells": [dict(zip(("value", "note", "title"), cell, strict=False)) for cell in cells],
    }
