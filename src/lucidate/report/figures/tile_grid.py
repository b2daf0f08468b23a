"""Grids of images: one sprite sheet laid under a layer that answers the mouse."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lucidate.core.records import jsonable
from lucidate.report import labels, theme
from lucidate.report.figures import frame
from lucidate.report.figures.tile_layout import CAPTION_LIMIT, TileGrid
from lucidate.report.sprites import Sprite

LABEL_WIDTH = 108  # pixels left of a grid whose rows are named
MARGIN = 24  # pixels around the static picture
TITLE_HEIGHT = 64  # pixels over it
ROW_LIMIT = 13  # characters at the left of a row
PREVIEW_ROWS = 8  # of the static picture, or a large grid would be a tower
NAMED_ROWS = 12  # the same, where a row is a class
OUTLINE = 3  # pixels outside a wrong tile


def draw_plotly(grid: TileGrid, sprite: Sprite) -> go.Figure:
    """The sprite as one layout image in sprite pixels; a transparent heatmap, a cell a tile, tells what it shows.

    customdata of a cell: [id, true class index, predicted class index].
    """
    height, width = sprite.image.shape[:2]
    left = LABEL_WIDTH if grid.row_labels else 8
    below = 8 if grid.row_labels else sprite.gap_y
    picture = {
        "source": sprite.url,
        "xref": "x",
        "yref": "y",
        "x": 0,
        "y": 0,
        "sizex": width,
        "sizey": height,
        "sizing": "stretch",
        "layer": "below",
    }
    fixed = {"fixedrange": True, "showgrid": False, "showticklabels": False}
    rows = {"range": [height + below, -8], **fixed}
    if grid.row_labels:
        centers = [sprite.corner(row * sprite.columns)[1] + sprite.tile / 2 for row in range(sprite.rows)]
        names = [theme.plotly_text(name) for name in labels.short_names(grid.row_labels, ROW_LIMIT)]
        rows |= {"tickmode": "array", "tickvals": centers, "ticktext": names, "showticklabels": True}
        rows |= {"tickfont": {"size": 13, "color": theme.LIGHT.ink}}
    return frame.plotly_figure(
        [_answers(grid, sprite), *_outlines(grid, sprite), *_captions(grid, sprite)],
        height=height + below + 8 + 16,
        width=width + 16 + left + 8,
        margin={"l": left, "r": 8, "t": 8, "b": 8, "autoexpand": False},
        images=[picture],
        dragmode=False,
        showlegend=False,
        xaxis={"range": [-8, width + 8], **fixed},
        yaxis=rows,
    )


@frame.static_settings()
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
    drawn_picture = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    axes.imshow(drawn_picture, extent=(0, width, height, 0), interpolation="none", aspect="auto")
    axes.set(xlim=(-left, frame.PNG_WIDTH * frame.PNG_DPI - left), ylim=(height + below, -top))
    drawn = int((grid.cells < rows * sprite.columns).sum())
    some = f" (first {drawn} of {len(grid.ids) + grid.left_out:,})" if drawn < len(grid.ids) else ""
    heading = theme.matplotlib_text(title + some)
    axes.text(scale * MARGIN - left, -top / 2, heading, va="center", fontsize=11.5, fontweight="bold")
    for row, name in enumerate(labels.short_names(grid.row_labels, ROW_LIMIT)[:rows]):
        middle = scale * (sprite.corner(row * sprite.columns)[1] + sprite.tile / 2)
        axes.text(-12 * scale, middle, theme.matplotlib_text(name), ha="right", va="center", fontsize=7.5)
    first, second, third = _lines(grid)
    inks = np.where(grid.wrong, theme.LIGHT.wrong, theme.LIGHT.muted)
    others = np.where(_third_is_wrong(grid), theme.LIGHT.wrong, theme.LIGHT.muted)
    for tile in range(drawn):
        x, y = sprite.corner(int(grid.cells[tile]))
        captions = [
            (first[tile], 6, theme.LIGHT.ink),
            (second[tile], 21, inks[tile]),
            (third[tile], 36, others[tile]),
        ]
        for text, offset, ink in captions:
            if text:
                position = (scale * (x + sprite.tile / 2), scale * (y + sprite.tile + offset))
                axes.text(*position, theme.matplotlib_text(text), ha="center", va="top", fontsize=5.6, color=ink)
    frames_x, frames_y = _frames(grid, sprite, drawn)
    if len(frames_x):
        axes.plot(scale * frames_x, scale * frames_y, color=theme.LIGHT.wrong, linewidth=1.2)
    return figure


def _answers(grid: TileGrid, sprite: Sprite) -> go.Heatmap:
    """The layer that hovering reads; cells without an image are holes in it."""
    shape = (sprite.rows, sprite.columns)
    z = np.full(shape, np.nan)
    z.flat[grid.cells] = 0
    words = np.full(shape, "", dtype=object)
    data = np.full(shape, None, dtype=object)
    for tile, cell in enumerate(grid.cells.tolist()):
        name, *rest = (theme.plotly_text(line) for line in grid.words[tile])
        words.flat[cell] = "<br>".join([f"<b>{name}</b>", *rest])
        data.flat[cell] = [str(grid.ids[tile]), *grid.pairs[tile]]
    return go.Heatmap(
        x=[sprite.corner(column)[0] + sprite.tile / 2 for column in range(sprite.columns)],
        y=[sprite.corner(row * sprite.columns)[1] + sprite.tile / 2 for row in range(sprite.rows)],
        z=jsonable(z),
        hovertext=words.tolist(),
        customdata=data.tolist(),
        hoverinfo="text",
        hoverongaps=False,
        opacity=0,
        showscale=False,
    )


def _outlines(grid: TileGrid, sprite: Sprite) -> list[go.Scatter]:
    x, y = _frames(grid, sprite, len(grid.ids))
    line = {"color": theme.LIGHT.wrong, "width": 2}
    return [go.Scatter(x=jsonable(x), y=jsonable(y), mode="lines", line=line, hoverinfo="skip")] if len(x) else []


def _captions(grid: TileGrid, sprite: Sprite) -> list[go.Scatter]:
    """Lines under the tiles: the true class in ink; what was made of it in the color of right or wrong."""
    corners = np.array([sprite.corner(cell) for cell in grid.cells.tolist()])
    x, y = corners[:, 0] + sprite.tile / 2, corners[:, 1] + sprite.tile
    first, second, third = _lines(grid)

    def line(texts: list[str], chosen: NDArray[np.bool_], offset: int, color: str) -> go.Scatter:
        return go.Scatter(
            x=x[chosen].tolist(),
            y=(y[chosen] + offset).tolist(),
            text=[theme.plotly_text(text) for text, here in zip(texts, chosen, strict=True) if here],
            mode="text",
            textposition="middle center",
            textfont={"size": 10, "color": color},
            hoverinfo="skip",
            cliponaxis=False,
        )

    lines = [
        (first, np.ones(len(grid.ids), dtype=np.bool_), 13, theme.LIGHT.ink),
        (second, grid.wrong, 28, theme.LIGHT.wrong),
        (second, ~grid.wrong, 28, theme.LIGHT.muted),
    ]
    red = _third_is_wrong(grid)
    lines += [(third, red, 43, theme.LIGHT.wrong), (third, ~red, 43, theme.LIGHT.muted)]
    return [line(*arguments) for arguments in lines if any(arguments[0]) and arguments[1].any()]


def _lines(grid: TileGrid) -> tuple[list[str], list[str], list[str]]:
    """What the three lines under each tile say."""
    first = [_caption(text) for text in grid.first]
    if grid.apart:
        return first, [_caption(text) for text in grid.second], list(grid.amounts)
    second = [_caption(text, amount) for text, amount in zip(grid.second, grid.amounts, strict=True)]
    third = [_caption(text, amount) for text, amount in zip(grid.third, grid.third_amounts, strict=True)]
    return first, second, third or [""] * len(first)


def _third_is_wrong(grid: TileGrid) -> NDArray[np.bool_]:
    """(T,) which third lines have the color of errors: of two models the other is wrong; amounts go with the second."""
    return grid.wrong if grid.apart else ~grid.wrong


def _caption(text: str, amount: str = "") -> str:
    """A caption within its limit; the amount at its end stays whole, the name before it is what gets shortened."""
    limit = CAPTION_LIMIT + 1 - len(amount) if amount else CAPTION_LIMIT  # a percent sign and a space are narrow
    return f"{labels.shorten(text, limit)} {amount}".strip()


def _frames(grid: TileGrid, sprite: Sprite, tiles: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The outlines among the first `tiles`, as one path with gaps (NaN) between frames."""
    corners = [sprite.corner(cell) for cell in grid.cells[:tiles][grid.outlined[:tiles]].tolist()]
    a, b = -OUTLINE, sprite.tile + OUTLINE
    shape_x, shape_y = np.array([a, b, b, a, a, np.nan]), np.array([a, a, b, b, a, np.nan])
    path = [(left + shape_x, top + shape_y) for left, top in corners]
    if not path:
        return np.zeros(0), np.zeros(0)
    return np.concatenate([x for x, _ in path]), np.concatenate([y for _, y in path])


def _on_surface(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA on the page's white as RGB, so that interpolation does not drag the gaps' black into the tiles."""
    ground = np.array([round(255 * part) for part in to_rgb(theme.LIGHT.surface)], dtype=np.uint8)
    return np.where(image[..., 3:] > 127, image[..., :3], ground)
