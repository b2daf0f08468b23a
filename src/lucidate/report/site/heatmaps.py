"""The gallery's page of heatmaps: images under what speaks for one class and for another, with a slider between."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucidate.analysis.formatting import percent
from lucidate.analysis.heat_colors import heat_colors
from lucidate.analysis.heatmaps import Group, Heatmaps, center_words
from lucidate.report import theme
from lucidate.report.labels import escape
from lucidate.report.site import pages, site
from lucidate.report.site.tables import Table
from lucidate.report.sprites import TILE, Sheet, fit, make_sheet

NAME = "heatmaps"
COLUMNS = 10
PREVIEW = 8  # images of the still picture
GAP = 6  # pixels between them

_BODY = Template("""<header class="head">
<p class="eyebrow">Where it looks</p>
<h1>Heatmaps by $method</h1>
<p class="lead">$headline</p>
</header>
<div class="fader"><label for="fade">image</label>
<input id="fade" type="range" min="0" max="100" value="60" aria-label="Fade between image and heatmap"
 oninput="document.documentElement.style.setProperty('--fade', this.value / 100)"><span>heatmap</span></div>
$groups
<section class="part"><h2>Where it looks for each class</h2>
<p class="lead">The mean heatmap of all images that were answered with a class. What is bright is looked at often.
An even spread says that no place matters by itself; a bright middle may be the photographers' habit.</p>
<ul class="means">$means</ul></section>
<section class="part"><h2>Whether to trust them</h2>
<dl class="trust">$trust</dl>
<p class="links">$downloads</p>
<p class="hint">Taken from layer $layer. An empty map is not stretched to show something: its image stays plain.</p>
</section>
""")
MEANINGS = (
    (
        "randomization",
        "Rank correlation with maps of random weights",
        "near 0 is right: maps depend on the weights",
    ),
    ("pointing", "Share in the right quarter of a mosaic of four", "0.25 is chance, 1 is best"),
    ("deletion", "Confidence while marked places are taken away", "lower is better"),
    ("deletion_random", "… while random places are", "what deletion is to beat"),
    ("deletion_center", "… while the middle is", "what deletion is to beat"),
    ("insertion", "Confidence while marked places are put back", "higher is better"),
    ("insertion_random", "… while random places are", "what insertion is to beat"),
    ("insertion_center", "… while the middle is", "what insertion is to beat"),
)


def write_heatmaps(folder: Path, info: Heatmaps, pixels: NDArray[np.uint8], *, title: str) -> pages.Card:
    """Write the page, its sprites, picture and table into a site, and return its card. pixels: (N, H, W, 3) uint8."""
    styles = (resources.files("lucidate.report.site") / "assets/heatmaps.css").read_text(encoding="utf-8")
    site.write_text(folder / "assets/heatmaps.css", styles)
    sections = []
    for group in info.groups:
        sheets = _sheets(group, pixels)
        for sheet, kind in zip(sheets, ("image", "first", "second"), strict=True):
            (folder / "assets/sprites" / f"{NAME}-{group.key}-{kind}.webp").write_bytes(sheet.encoded())
        sections.append(_section(group, sheets, info.class_names))
    means = _means(info)
    (folder / "assets/sprites" / f"{NAME}-means.webp").write_bytes(means.encoded())
    table = Table("Heatmaps", NAME, info.frame())
    site.write_tables(folder, [table])
    picture, size = preview(info, pixels)
    (folder / "plots" / f"{NAME}.png").write_bytes(picture)
    body = _BODY.substitute(
        method=escape(info.title),
        headline=pages.text(info.headline),
        groups="".join(sections),
        means="".join(_mean(place, name, info, means) for place, name in enumerate(info.class_names)),
        trust=_trust(info),
        downloads=pages.download(f"../assets/csv/{NAME}.csv", "Heatmaps (CSV)")
        + pages.download(f"../plots/{NAME}.png", "Picture (PNG)"),
        layer=escape(info.layer or "none"),
    )
    arrow = '<span aria-hidden="true">←</span>'
    page = pages.frame(
        body,
        title=f"Heatmaps – {title}",
        description=info.headline,
        root="../",
        home=f'<a class="home" href="../index.html">{arrow} {escape(title)} gallery</a>',
        styles=["heatmaps.css"],
    )
    site.write_text(folder / "docs" / f"{NAME}.html", page)
    return pages.Card(
        name=NAME,
        title="Where it looks",
        group="Where it looks",
        headline=info.headline,
        kind="grid",
        question=NAME,
        size=size,
        sheet=None,
    )


def colors(heatmap: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W, 4) RGBA of a heatmap (H, W): transparent where it is 0, so that the image below shows."""
    shown = np.clip(heatmap.astype(np.float64), 0, 1)
    alpha = 255 * np.minimum(1.0, 0.25 + shown)[..., None] * (shown.max() > 0)
    return np.rint(np.concatenate([heat_colors(shown), alpha], axis=-1)).astype(np.uint8)


def overlaid(image: NDArray[np.uint8], heatmap: NDArray[Any]) -> NDArray[np.uint8]:
    """An image (S, S, 3) in the size of a tile, its map (h, w) in colors over it."""
    below = Image.fromarray(fit(image))
    color = Image.fromarray(colors(enlarged(heatmap, TILE)))
    color.putalpha(color.getchannel("A").point(lambda alpha: alpha * 6 // 10))  # the slider's place on the page
    below.paste(color, (0, 0), color)
    return np.asarray(below)


def enlarged(heatmap: NDArray[np.floating], side: int) -> NDArray[np.float64]:
    """A map (h, w) in the size of a tile, bilinear."""
    picture = Image.fromarray(np.asarray(heatmap, np.float32), mode="F")
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float64)


def preview(info: Heatmaps, pixels: NDArray[np.uint8]) -> tuple[bytes, tuple[int, int]]:
    """A still picture of the first group as a PNG: images, and below them both maps. Also its size in pixels."""
    group = info.groups[0] if info.groups else None
    columns = min(PREVIEW, len(group.tiles)) if group else 0
    size = (max(columns, 1) * (TILE + GAP) - GAP, 3 * (TILE + GAP) - GAP)
    canvas = Image.new("RGB", size, theme.LIGHT.surface)
    for column in range(columns):
        assert group is not None  # else there is no column
        image = np.asarray(pixels[group.tiles.index[column]])
        shown = (fit(image), overlaid(image, group.first[column]), overlaid(image, group.second[column]))
        for row, tile in enumerate(shown):
            canvas.paste(Image.fromarray(tile), (column * (TILE + GAP), row * (TILE + GAP)))
    buffer = BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), size


def _sheets(group: Group, pixels: NDArray[np.uint8]) -> tuple[Sheet, Sheet, Sheet]:
    """The images, and the colors of their two maps, cell by cell."""
    cells = np.arange(len(group.tiles))
    own = make_sheet(
        pixels,
        group.tiles.index,
        ids=group.tiles.ids,
        cells=cells,
        columns=COLUMNS,
        gaps=(0, 0),
        url=f"../assets/sprites/{NAME}-{group.key}-image.webp",
    )
    return (
        own,
        _colored(own, group.first, f"{NAME}-{group.key}-first"),
        _colored(own, group.second, f"{NAME}-{group.key}-second"),
    )


def _colored(like: Sheet, maps: NDArray[np.float32], name: str) -> Sheet:
    image = np.zeros_like(like.image)
    for cell, heatmap in enumerate(maps):
        left, top = like.corner(cell)
        image[top : top + TILE, left : left + TILE] = colors(enlarged(heatmap, TILE))
    return replace(like, image=image, url=f"../assets/sprites/{name}.webp")


def _means(info: Heatmaps) -> Sheet:
    rows = -(-len(info.class_names) // COLUMNS)
    blank = Sheet(
        np.zeros((rows * TILE, COLUMNS * TILE, 4), np.uint8),
        (None,) * (rows * COLUMNS),
        COLUMNS,
        0,
        0,
        "",
        (TILE, TILE),
    )
    peaks = info.mean_maps.max(axis=(1, 2), keepdims=True)
    return _colored(blank, info.mean_maps / np.maximum(peaks, 1e-30), f"{NAME}-means")


def _section(group: Group, sheets: tuple[Sheet, Sheet, Sheet], names: tuple[str, ...]) -> str:
    items = []
    for tile in range(len(group.tiles)):
        left, top = sheets[0].corner(tile)
        true, said, other = (names[k[tile]] for k in (group.tiles.labels, group.tiles.predicted, group.other))
        sure = percent(group.tiles.confidence[tile])
        pair = ""
        for sheet, name, peak, kind in (
            (sheets[1], said, group.first_peak[tile], "right" if said == true else "wrong"),
            (sheets[2], other, group.second_peak[tile], "right" if other == true else "wrong"),
        ):
            words = "empty" if peak == 0 else f"for {name}"
            pair += (
                f'<figure><span class="tile" role="img" aria-label="{escape(true)}: what speaks {escape(words)}" '
                f'style="background-image: url({sheets[0].url}); background-position: -{left}px -{top}px">'
                f'<span class="map" style="background-image: url({sheet.url}); '
                f'background-position: -{left}px -{top}px"></span></span>'
                f'<figcaption class="{kind}">{escape(words)}</figcaption></figure>'
            )
        items.append(
            f'<li><div class="pair">{pair}</div><span class="true">{escape(true)}</span> '
            f'<span class="sure">answered {escape(said)}, {pages.text(sure)} sure</span></li>'
        )
    return (
        f'<section class="part" id="{group.key}"><h2>{escape(group.title)}</h2>'
        f'<ul class="heatmaps">{"".join(items)}</ul></section>'
    )


def _mean(place: int, name: str, info: Heatmaps, sheet: Sheet) -> str:
    left, top = sheet.corner(place)
    return (
        f'<li><span class="tile mean" role="img" aria-label="{escape(name)}" '
        f'style="background-image: url({sheet.url}); background-position: -{left}px -{top}px"></span>'
        f'<span class="true">{escape(name)}</span> '
        f'<span class="sure">{pages.text(center_words(float(info.center[place])))}</span></li>'
    )


def _trust(info: Heatmaps) -> str:
    lines = []
    for key, label, meaning in MEANINGS:
        share = info.trust.get(key)
        if share and share["mean"] is not None:
            value = f"{share['mean']:.2f} <span>({share['low']:.2f} to {share['high']:.2f})</span>"
            lines.append(f"<div><dt>{escape(label)}</dt><dd>{value}<span>{escape(meaning)}</span></dd></div>")
    return "".join(lines) or "<div><dt>Trust</dt><dd>was not measured</dd></div>"
