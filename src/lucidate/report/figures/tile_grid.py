"""Grids of images: which tile stands where, the words around it, and one sprite laid under a layer of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lucidate.analysis.dataset import ExamplesPerClass
from lucidate.analysis.formatting import percent
from lucidate.analysis.samples import Sample
from lucidate.core.records import jsonable
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.sprites import Sprite
from lucidate.report.theme import matplotlib_text, plotly_text, short_names, shorten, telling

MAX_TILES = 400  # drawn on a page; the table lists all, and a browser stays quick
COLUMNS = 10
GAP = 16  # pixels between tiles that carry captions
TIGHT = 4  # pixels between tiles whose rows are named
BELOW, LINE = 14, 15  # pixels under a tile that carries captions, and more for each of them
CAPTION_LIMIT = 17  # characters under a tile: what 96 + 16 pixels hold in the type of captions
LABEL_WIDTH, ROW_LIMIT = 108, 13  # pixels left of a grid whose rows are named, and characters there
MARGIN = 24  # pixels around the static picture
TITLE_HEIGHT = 64  # pixels over it
PREVIEW_ROWS = 8  # of the static picture, or a large grid would be a tower
NAMED_ROWS = 12  # the same, where a row is a class
OUTLINE = 3  # pixels outside a wrong tile


@dataclass(frozen=True, eq=False)
class Captions:
    """A line under each of T tiles.

    texts: of long names what they have in common at their start is left out. amounts: what ends them, kept whole where
    a name must be shortened; or none. wrong: (T,) bool, which have the color of errors; None: all are in ink.
    """

    texts: tuple[str, ...]
    amounts: tuple[str, ...] = ()
    wrong: NDArray[np.bool_] | None = None

    @property
    def lines(self) -> list[str]:
        amounts = self.amounts or ("",) * len(self.texts)
        return [caption(text, amount) for text, amount in zip(self.texts, amounts, strict=True)]

    @property
    def inks(self) -> list[str]:
        if self.wrong is None:
            return [theme.LIGHT.ink] * len(self.texts)
        return np.where(self.wrong, theme.LIGHT.wrong, theme.LIGHT.muted).tolist()


@dataclass(frozen=True, eq=False)
class TileGrid:
    """T images on a grid, parallel arrays and tuples.

    ids: (T,) str; index: (T,) int64 rows of the packed store; cells: (T,) int64, reading order, may leave gaps.
    words: lines that hovering tells. pairs: (true, predicted) class indices. captions: lines under the tiles.
    outlined: (T,) bool, as wrong; none where two models answered. row_labels: one a row, or none at all.
    left_out: images that the Info holds and the grid does not.
    """

    ids: NDArray[np.str_]
    index: NDArray[np.int64]
    cells: NDArray[np.int64]
    words: tuple[tuple[str, ...], ...]
    pairs: tuple[tuple[int, int], ...]
    outlined: NDArray[np.bool_]
    captions: tuple[Captions, ...] = ()
    row_labels: tuple[str, ...] = ()
    columns: int = COLUMNS
    left_out: int = 0

    @property
    def gaps(self) -> tuple[int, int]:
        """Pixels between columns and between rows."""
        return (GAP, BELOW + LINE * len(self.captions)) if self.captions else (TIGHT, TIGHT)


def caption(text: str, amount: str = "") -> str:
    """A caption within its limit; the amount at its end stays whole, the name before it is what gets shortened."""
    limit = CAPTION_LIMIT + 1 - len(amount) if amount else CAPTION_LIMIT  # a percent sign and a space are narrow
    return f"{shorten(text, limit)} {amount}".strip()


def examples_grid(info: ExamplesPerClass) -> TileGrid | None:
    """One row a class, named at its left; None without images."""
    if not len(info.ids):
        return None
    shown, rows = np.unique(info.labels, return_inverse=True)
    positions = np.arange(len(rows)) - np.searchsorted(rows, rows)  # labels ascend, so a row's images are neighbors
    names = np.array(info.class_names)
    return TileGrid(
        ids=info.ids,
        index=info.index,
        cells=rows * info.per_class + positions,
        words=tuple(zip(names[info.labels].tolist(), info.ids.tolist(), strict=True)),
        pairs=tuple((label, label) for label in info.labels.tolist()),
        outlined=np.zeros(len(rows), dtype=np.bool_),
        row_labels=tuple(names[shown].tolist()),
        columns=info.per_class,
    )


def tiles_grid(info: Sample) -> TileGrid | None:
    """The images in their order, with the true class and the answer under each; None without images."""
    total = min(len(info.tiles), MAX_TILES)
    if not total:
        return None
    tiles = info.tiles.take(np.arange(total))
    names, short = tiles.class_names, telling(tiles.class_names, CAPTION_LIMIT)
    pairs = tuple(zip(tiles.labels.tolist(), tiles.predicted.tolist(), strict=True))
    sure, own = (tuple(map(percent, shares)) for shares in (tiles.confidence, tiles.true_probability))

    def words(tile: int) -> tuple[str, ...]:
        true, predicted = (names[label] for label in pairs[tile])
        said = (f"taken for {predicted}, {sure[tile]} sure", f"{own[tile]} for {true}")
        return (true, *(said if true != predicted else (f"recognized, {sure[tile]} sure",)), str(tiles.ids[tile]))

    wrong, first = ~tiles.correct, Captions(tuple(short[label] for label in tiles.labels))
    said = tuple(f"→ {short[label]}" if other else "" for label, other in zip(tiles.predicted, wrong, strict=True))
    captions: tuple[Captions, ...] = (first, Captions(said, sure, wrong))
    if any(len(answer) + len(amount) > CAPTION_LIMIT + 1 for answer, amount in zip(said, sure, strict=True) if answer):
        captions = first, Captions(said, wrong=wrong), Captions(sure, wrong=wrong)  # amounts on a line of their own
    return TileGrid(
        ids=tiles.ids,
        index=tiles.index,
        cells=np.arange(total),
        words=tuple(map(words, range(total))),
        pairs=pairs,
        outlined=wrong,
        captions=captions,
        left_out=len(info.tiles) - total,
    )


def draw_plotly(grid: TileGrid, sprite: Sprite) -> go.Figure:
    """The sprite as one layout image in sprite pixels; a transparent heatmap, a cell a tile, tells what it shows.

    customdata of a cell: [id, true class index, predicted class index].
    """
    height, width = sprite.image.shape[:2]
    left, below = (LABEL_WIDTH, 8) if grid.row_labels else (8, sprite.gap_y)
    picture: dict[str, Any] = {"source": sprite.url, "sizing": "stretch", "layer": "below"}
    picture |= {"xref": "x", "yref": "y", "x": 0, "y": 0, "sizex": width, "sizey": height}
    fixed = {"fixedrange": True, "showgrid": False, "showticklabels": False}
    rows = {"range": [height + below, -8], **fixed}
    if grid.row_labels:
        names = [plotly_text(name) for name in short_names(grid.row_labels, ROW_LIMIT)]
        rows |= {"tickmode": "array", "tickvals": sprite.middles(), "ticktext": names, "showticklabels": True}
        rows |= {"tickfont": {"size": 13, "color": theme.LIGHT.ink}}
    lines, (outline_x, outline_y) = [], _outlines(grid, sprite, len(grid.ids))
    if len(outline_x):
        look = {"mode": "lines", "line": {"color": theme.LIGHT.wrong, "width": 2}, "hoverinfo": "skip"}
        lines.append(go.Scatter(x=jsonable(outline_x), y=jsonable(outline_y), **look))
    corners = np.array([sprite.corner(cell) for cell in grid.cells.tolist()])
    for number, line in enumerate(grid.captions):
        text = go.Scatter(
            x=(corners[:, 0] + sprite.tile / 2).tolist(),
            y=(corners[:, 1] + sprite.tile + 13 + LINE * number).tolist(),
            text=[plotly_text(words) for words in line.lines],
            mode="text",
            textposition="middle center",
            textfont={"size": 10, "color": line.inks},
            hoverinfo="skip",
            cliponaxis=False,
        )
        lines.append(text)
    return frame.plotly_figure(
        [_answers(grid, sprite), *lines],
        height=height + below + 8 + 16,
        width=width + 16 + left + 8,
        margin={"l": left, "r": 8, "t": 8, "b": 8, "autoexpand": False},
        images=[picture],
        dragmode=False,
        showlegend=False,
        xaxis={"range": [-8, width + 8], **fixed},
        yaxis=rows,
    )


def draw_matplotlib(grid: TileGrid, sprite: Sprite, *, title: str) -> Figure:
    """The first rows of the sprite, with captions, in pixels of the picture: resampled once, by Pillow."""
    rows = min(sprite.rows, NAMED_ROWS if grid.row_labels else PREVIEW_ROWS)
    picture = _on_surface(sprite.image[: rows * (sprite.tile + sprite.gap_y) - sprite.gap_y])
    left = LABEL_WIDTH if grid.row_labels else MARGIN
    scale = frame.PNG_WIDTH * frame.PNG_DPI / (left + picture.shape[1] + MARGIN)  # pixels of the picture a sprite's
    width, height = (round(scale * side) for side in (picture.shape[1], picture.shape[0]))
    left, top = round(scale * left), round(scale * TITLE_HEIGHT)
    below = round(scale * (MARGIN if grid.row_labels else sprite.gap_y + 8))
    figure = Figure(figsize=(frame.PNG_WIDTH, (top + height + below) / frame.PNG_DPI))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    axes.imshow(resized, extent=(0, width, height, 0), interpolation="none", aspect="auto")
    axes.set(xlim=(-left, frame.PNG_WIDTH * frame.PNG_DPI - left), ylim=(height + below, -top))
    drawn = int((grid.cells < rows * sprite.columns).sum())
    some = f" (first {drawn} of {len(grid.ids) + grid.left_out:,})" if drawn < len(grid.ids) else ""
    heading: dict[str, Any] = {"va": "center", "fontsize": 11.5, "fontweight": "bold"}
    axes.text(scale * MARGIN - left, -top / 2, matplotlib_text(title + some), **heading)
    beside: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 7.5}
    for name, middle in zip(short_names(grid.row_labels, ROW_LIMIT)[:rows], sprite.middles(), strict=False):
        axes.text(-12 * scale, scale * middle, matplotlib_text(name), **beside)
    for number, line in enumerate(grid.captions):
        for text, ink, cell in zip(line.lines[:drawn], line.inks[:drawn], grid.cells[:drawn].tolist(), strict=True):
            x, y = sprite.corner(cell)
            place = scale * (x + sprite.tile / 2), scale * (y + sprite.tile + 6 + LINE * number)
            axes.text(*place, matplotlib_text(text), ha="center", va="top", fontsize=5.6, color=ink)
    outline_x, outline_y = _outlines(grid, sprite, drawn)
    axes.plot(scale * outline_x, scale * outline_y, color=theme.LIGHT.wrong, linewidth=1.2)
    return figure


def _answers(grid: TileGrid, sprite: Sprite) -> go.Heatmap:
    """The layer that hovering reads; cells without an image are holes in it."""
    shape = (sprite.rows, sprite.columns)
    z, words, data = np.full(shape, np.nan), np.full(shape, "", dtype=object), np.full(shape, None, dtype=object)
    for tile, cell in enumerate(grid.cells.tolist()):
        name, *rest = map(plotly_text, grid.words[tile])
        words.flat[cell] = "<br>".join([f"<b>{name}</b>", *rest])
        data.flat[cell] = [str(grid.ids[tile]), *grid.pairs[tile]]
        z.flat[cell] = 0
    return go.Heatmap(
        x=[sprite.corner(column)[0] + sprite.tile / 2 for column in range(sprite.columns)],
        y=sprite.middles(),
        z=jsonable(z),
        hovertext=words.tolist(),
        customdata=data.tolist(),
        hoverinfo="text",
        hoverongaps=False,
        opacity=0,
        showscale=False,
    )


def _outlines(grid: TileGrid, sprite: Sprite, tiles: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The outlines among the first `tiles`, as one path with gaps (NaN) between frames."""
    cells = grid.cells[:tiles][grid.outlined[:tiles]].tolist()
    left, top = np.array([sprite.corner(cell) for cell in cells]).reshape(-1, 2, 1).swapaxes(0, 1)
    a, b = -OUTLINE, sprite.tile + OUTLINE
    x, y = np.array([a, b, b, a, a, np.nan]), np.array([a, a, b, b, a, np.nan])
    return (left + x).ravel(), (top + y).ravel()


def _on_surface(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA on the page's white as RGB, so that interpolation does not drag the gaps' black into the tiles."""
    ground = np.array([round(255 * part) for part in to_rgb(theme.LIGHT.surface)], dtype=np.uint8)
    return np.where(image[..., 3:] > 127, image[..., :3], ground)
