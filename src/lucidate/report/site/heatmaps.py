"""The gallery's page of heatmaps: images under what speaks for one class and for another, with a slider between."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucidate.analysis.formatting import percent
from lucidate.analysis.heatmaps import Group, Heatmaps, heat_colors
from lucidate.report import theme
from lucidate.report.site import site
from lucidate.report.site.pages import Card, Table, write_page
from lucidate.report.sprites import TILE, Sprite, fit, make_sprite

NAME = "heatmaps"
COLUMNS = 10
PREVIEW = 8  # images of the static picture
GAP = 6  # pixels between them

MEANINGS = (
    ("randomization", "Rank correlation with maps of random weights", "near 0 is right: maps depend on the weights"),
    ("pointing", "Share in the right quarter of a mosaic of four", "0.25 is chance, 1 is best"),
    ("deletion", "Confidence while marked places are taken away", "lower is better"),
    ("deletion_random", "… while random places are", "what deletion is to beat"),
    ("deletion_center", "… while the middle is", "what deletion is to beat"),
    ("insertion", "Confidence while marked places are put back", "higher is better"),
    ("insertion_random", "… while random places are", "what insertion is to beat"),
    ("insertion_center", "… while the middle is", "what insertion is to beat"),
)


def write_heatmaps(folder: Path, info: Heatmaps, pixels: NDArray[np.uint8], *, title: str) -> Card:
    """Write the page, its sprites, picture and table into a site, and return its card. pixels: (N, H, W, 3) uint8."""
    site.add_style(folder, "heatmaps.css")
    groups, means = [], _means(info)
    for group in info.groups:
        sprites = _sprites(group, pixels)
        images = [_image(group, tile, sprites, info.class_names) for tile in range(len(group.tiles))]
        groups.append({"key": group.key, "title": group.title, "sprite": sprites[0], "images": images})
        for sprite in sprites:
            (folder / sprite.file).write_bytes(sprite.encoded())
    (folder / means.file).write_bytes(means.encoded())
    site.write_tables(folder, [Table("Heatmaps", NAME, info.frame())])
    picture, size = preview(info, pixels)
    (folder / "plots" / f"{NAME}.png").write_bytes(picture)
    means_told = [
        (name, f"{percent(share)} in the middle quarter (25 % would be even)")
        for name, share in zip(info.class_names, info.center.tolist(), strict=True)
    ]
    content = {"style": "heatmaps.css", "site_title": f"{title} gallery", "info": info, "groups": groups}
    content |= {"mean_sprite": means, "means": means_told, "trust": measured(info)}
    page, heading = folder / "docs" / f"{NAME}.html", f"Heatmaps – {title}"
    write_page(page, "heatmaps.html", title=heading, description=info.headline, content=content)
    where = "Where it looks"
    return Card(name=NAME, title=where, group=where, headline=info.headline, kind="grid", question=NAME, size=size)


def measured(info: Heatmaps) -> list[tuple[str, Any, str]]:
    """Label, figures {mean, low, high} and meaning of each test of trust that was made."""
    found = [(label, info.trust.get(key), meaning) for key, label, meaning in MEANINGS]
    return [(label, share, meaning) for label, share, meaning in found if share and share["mean"] is not None]


def colors(heatmap: NDArray[np.floating]) -> NDArray[np.uint8]:
    """RGBA of a map (h, w) in the size of a tile: transparent where it is 0, so that the image below shows."""
    picture = Image.fromarray(np.asarray(heatmap, np.float32), mode="F")
    shown = np.clip(np.asarray(picture.resize((TILE, TILE), Image.Resampling.BILINEAR), dtype=np.float64), 0, 1)
    alpha = 255 * np.minimum(1.0, 0.25 + shown)[..., None] * (shown.max() > 0)
    return np.rint(np.concatenate([heat_colors(shown), alpha], axis=-1)).astype(np.uint8)


def overlaid(image: NDArray[np.uint8], heatmap: NDArray[Any]) -> NDArray[np.uint8]:
    """An image (S, S, 3) in the size of a tile, its map (h, w) in colors over it."""
    below, color = Image.fromarray(fit(image)), Image.fromarray(colors(heatmap))
    color.putalpha(color.getchannel("A").point(lambda alpha: alpha * 6 // 10))  # the slider's place on the page
    below.paste(color, (0, 0), color)
    return np.asarray(below)


def preview(info: Heatmaps, pixels: NDArray[np.uint8]) -> tuple[bytes, tuple[int, int]]:
    """A static picture of the first group as a PNG: images, and below them both maps. Also its size in pixels."""
    columns = []
    for group in info.groups[:1]:
        shown = zip(group.tiles.index[:PREVIEW], group.first, group.second, strict=False)
        for index, first, second in shown:
            image = np.asarray(pixels[index])
            columns.append((fit(image), overlaid(image, first), overlaid(image, second)))
    size = (max(len(columns), 1) * (TILE + GAP) - GAP, 3 * (TILE + GAP) - GAP)
    canvas = Image.new("RGB", size, theme.LIGHT.surface)
    for left, column in enumerate(columns):
        for top, tile in enumerate(column):
            canvas.paste(Image.fromarray(tile), (left * (TILE + GAP), top * (TILE + GAP)))
    buffer = BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), size


def _sprites(group: Group, pixels: NDArray[np.uint8]) -> tuple[Sprite, Sprite, Sprite]:
    """The images, and the colors of their two maps, cell by cell."""
    name, tiles = f"{NAME}-{group.key}", group.tiles
    place: dict[str, Any] = {"cells": np.arange(len(tiles)), "columns": COLUMNS, "gaps": (0, 0)}
    own = make_sprite(pixels, tiles.index, ids=tiles.ids, **place, url=f"../assets/sprites/{name}-image.webp")
    return own, _colored(own, group.first, f"{name}-first"), _colored(own, group.second, f"{name}-second")


def _colored(like: Sprite, maps: NDArray[np.float32], name: str) -> Sprite:
    image = np.zeros_like(like.image)
    for cell, heatmap in enumerate(maps):
        left, top = like.corner(cell)
        image[top : top + TILE, left : left + TILE] = colors(heatmap)
    return replace(like, image=image, url=f"../assets/sprites/{name}.webp")


def _means(info: Heatmaps) -> Sprite:
    rows = -(-len(info.class_names) // COLUMNS)
    image = np.zeros((rows * TILE, COLUMNS * TILE, 4), np.uint8)
    blank = Sprite(image, (None,) * (rows * COLUMNS), COLUMNS, gap_x=0, gap_y=0, url="", source=(TILE, TILE))
    peaks = info.mean_maps.max(axis=(1, 2), keepdims=True)
    return _colored(blank, info.mean_maps / np.maximum(peaks, 1e-30), f"{NAME}-means")


def _image(group: Group, tile: int, sprites: tuple[Sprite, ...], names: tuple[str, ...]) -> dict[str, Any]:
    """What the page says of one image and its two maps."""
    true, said, other = (names[k[tile]] for k in (group.tiles.labels, group.tiles.predicted, group.other))
    both = (sprites[1], said, group.first_peak[tile]), (sprites[2], other, group.second_peak[tile])
    maps = [
        {"sprite": sprite, "words": f"for {name}" if peak else "empty", "kind": "right" if name == true else "wrong"}
        for sprite, name, peak in both
    ]
    return {"cell": tile, "true": true, "said": said, "sure": percent(group.tiles.confidence[tile]), "maps": maps}
