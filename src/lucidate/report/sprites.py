"""Sprites: many small images in one file, on a regular grid that a script can address."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

TILE = 96  # pixels: where a 32-pixel image is large enough to judge, and ten of them fit a page
TINY = 24 * TILE * TILE  # pixels of a sprite below which lossless costs little
QUALITY = 82  # of lossy WebP; enlarged images are smooth, so this stays under a kilobyte a tile


@dataclass(frozen=True, eq=False)
class Sprite:
    """Cells in reading order; cell n stands at column n % columns, row n // columns.

    image: (height, width, 4) uint8 RGBA, gaps transparent. ids: one a cell, None where a cell is empty.
    The upper left corner of a cell is (column * (tile + gap_x), row * (tile + gap_y)), in pixels.
    url: of the file, relative to the pages in docs/. source: height and width of the images as they are stored.
    """

    image: NDArray[np.uint8]
    ids: tuple[str | None, ...]
    columns: int
    gap_x: int
    gap_y: int
    url: str
    source: tuple[int, int]
    tile: int = TILE

    @property
    def file(self) -> str:
        """The file, relative to the site's first folder."""
        return self.url.removeprefix("../")

    @property
    def rows(self) -> int:
        return len(self.ids) // self.columns

    def corner(self, cell: int) -> tuple[int, int]:
        """Left and top of a cell, pixels."""
        row, column = divmod(cell, self.columns)
        return column * (self.tile + self.gap_x), row * (self.tile + self.gap_y)

    def middles(self) -> list[float]:
        """Vertical middle of each row, pixels."""
        return [self.corner(row * self.columns)[1] + self.tile / 2 for row in range(self.rows)]

    def address(self) -> dict[str, Any]:
        """What a script needs to cut a tile out: {sprite, columns, tile, gap: [x, y], ids}."""
        gap = [self.gap_x, self.gap_y]
        return {"sheet": self.url, "columns": self.columns, "tile": self.tile, "gap": gap, "ids": list(self.ids)}

    def encoded(self) -> bytes:
        """The sprite as a WebP file; without loss where it is tiny."""
        buffer = BytesIO()
        tiny = self.image.shape[0] * self.image.shape[1] <= TINY
        Image.fromarray(self.image).save(buffer, "WEBP", lossless=tiny, quality=QUALITY, method=4)
        return buffer.getvalue()


def make_sprite(
    pixels: NDArray[np.uint8],
    index: NDArray[np.int64],
    *,
    ids: NDArray[np.str_],
    cells: NDArray[np.int64],
    columns: int,
    gaps: tuple[int, int],
    url: str,
) -> Sprite:
    """Draw T images on a grid.

    pixels: (N, H, W, 3) uint8 store, may be memory-mapped; only rows `index` are read. index, ids, cells: (T,), the
    store's row, the name and the cell of each image. gaps: pixels between columns and between rows.
    """
    rows = int(cells.max()) // columns + 1
    gap_x, gap_y = gaps
    image = np.zeros((rows * (TILE + gap_y) - gap_y, columns * (TILE + gap_x) - gap_x, 4), np.uint8)
    names: list[str | None] = [None] * (rows * columns)
    sprite = Sprite(image, (), columns, gap_x, gap_y, url, pixels.shape[1:3])
    for row, name, cell in zip(index.tolist(), ids.tolist(), cells.tolist(), strict=True):
        tile = fit(np.asarray(pixels[row]))
        height, width = tile.shape[:2]
        left, top = sprite.corner(cell)
        left, top = left + (TILE - width) // 2, top + (TILE - height) // 2
        image[top : top + height, left : left + width] = np.pad(tile, ((0, 0), (0, 0), (0, 1)), constant_values=255)
        names[cell] = name
    return replace(sprite, ids=tuple(names))


def fit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 scaled so that its longer side is a tile's: Lanczos, and if enlarged a gentle unsharp mask.

    For display only: Lanczos of a 3- to 12-fold enlargement is soft, and the mask gives its edges back.
    """
    height, width = image.shape[:2]
    scale = TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    if scale <= 1:
        return np.asarray(picture)
    return np.asarray(picture.filter(ImageFilter.UnsharpMask(radius=1.6, percent=60, threshold=1)))
