"""The chapter on heatmaps: where the model looks on its surest mistakes, and whether to believe it."""

from __future__ import annotations

import numpy as np

from lucidate.report import labels
from lucidate.report.pdf import figures
from lucidate.report.pdf.content import Block, Chapter, Paragraph, Table, Tile, Tiles
from lucidate.report.pdf.report_data import ReportData
from lucidate.report.site.heatmaps import MEANINGS, overlaid

COLUMNS = 8
NAME = 12  # characters of a class under a tile


def where_it_looks(material: ReportData) -> Chapter | None:
    """Images of the first group under their two maps, and the figures behind the verdict; None without heatmaps."""
    info = material.heatmaps
    if info is None:
        return None
    blocks: list[Block] = [
        Paragraph(f"Heatmaps by {info.title}, taken from {info.layer or 'no layer'}. {info.headline}")
    ]
    for group in info.groups[:1]:
        count = min(len(group.tiles), COLUMNS)
        tiles: list[Tile | None] = []
        for maps, peaks, classes in (
            (group.first, group.first_peak, group.tiles.predicted),
            (group.second, group.second_peak, group.other),
        ):
            for place in range(COLUMNS):
                if place >= count:
                    tiles.append(None)
                    continue
                name = labels.shorten(info.class_names[classes[place]], NAME)
                image = overlaid(np.asarray(material.pixels[group.tiles.index[place]]), maps[place])
                words = "empty map" if peaks[place] == 0 else f"for {name}"
                wrong = bool(classes[place] != group.tiles.labels[place])
                tiles.append(Tile(figures.tile(image, alt=f"heatmap {words}"), words, "", wrong))
        blocks.append(
            Tiles(
                f"{group.title}: above, what speaks for the answer; below, what speaks for the other class",
                tuple(tiles),
                COLUMNS,
            )
        )
    rows = [
        (label, f"{share['mean']:.2f}", f"{share['low']:.2f} to {share['high']:.2f}", meaning)
        for key, label, meaning in MEANINGS
        if (share := info.trust.get(key)) and share["mean"] is not None
    ]
    if rows:
        head = ("Test", "Mean", "95 % interval", "How to read it")
        blocks.append(Table("Whether to trust the heatmaps", head, tuple(rows), "lrrl", wide=3))
    return Chapter("Where it looks", tuple(blocks))
