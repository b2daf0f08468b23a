"""What a grid of images shows: which tile in which cell, and the words around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lucidate.analysis.dataset import ExamplesPerClass
from lucidate.analysis.formatting import percent
from lucidate.analysis.samples import HardButCorrect, Misclassified, MostConfident
from lucidate.report.labels import telling

MAX_TILES = 400  # drawn on a page; the table lists all, and a browser stays quick
COLUMNS = 10
GAP = 16  # pixels between tiles that carry captions
TIGHT = 4  # pixels between tiles whose rows are named
CAPTION = 44  # pixels under a tile that carries two lines
LINE = 15  # pixels more for a third
CAPTION_LIMIT = 17  # characters under a tile: what 96 + 16 pixels hold in the type of captions


@dataclass(frozen=True, eq=False)
class TileGrid:
    """T images on a grid, parallel arrays and tuples.

    ids: (T,) str; index: (T,) int64 rows of the packed store; cells: (T,) int64, reading order, may leave gaps.
    first, second: the two lines under a tile, both empty where the row says it all; of long names what they have in
    common at their start is left out. amounts: what ends the second, kept whole where a name must be shortened; where
    some names are too long for that, all amounts take a line of their own. wrong: (T,) bool, outlined.
    third, third_amounts: a third line with its end, where two models answered: it is right where the second line is
    wrong and wrong where that is right; such tiles have no outline. Empty tuples: no tile has one.
    words: lines that hovering tells. pairs: (true, predicted) class indices. row_labels: one a row, or none at all.
    left_out: images that the Info holds and the grid does not.
    """

    ids: NDArray[np.str_]
    index: NDArray[np.int64]
    cells: NDArray[np.int64]
    first: tuple[str, ...]
    second: tuple[str, ...]
    amounts: tuple[str, ...]
    wrong: NDArray[np.bool_]
    words: tuple[tuple[str, ...], ...]
    pairs: tuple[tuple[int, int], ...]
    row_labels: tuple[str, ...] = ()
    columns: int = COLUMNS
    left_out: int = 0
    third: tuple[str, ...] = ()
    third_amounts: tuple[str, ...] = ()

    @property
    def gaps(self) -> tuple[int, int]:
        """Pixels between columns and between rows."""
        return (TIGHT, TIGHT) if self.row_labels else (GAP, CAPTION + (LINE if self.third or self.apart else 0))

    @property
    def apart(self) -> bool:
        """Whether amounts have a line of their own."""
        if self.third:
            return False
        return any(
            second and len(second) + 1 + len(amount) > CAPTION_LIMIT + 2  # a percent sign and a space are narrow
            for second, amount in zip(self.second, self.amounts, strict=True)
        )

    @property
    def outlined(self) -> NDArray[np.bool_]:
        """(T,) which tiles have an outline."""
        return np.zeros_like(self.wrong) if self.third else self.wrong


def examples_grid(info: ExamplesPerClass) -> TileGrid | None:
    """One row a class, named at its left; None without images."""
    if not len(info.ids):
        return None
    shown, rows = np.unique(info.labels, return_inverse=True)
    positions = np.arange(len(rows)) - np.searchsorted(rows, rows)  # labels ascend, so a row's images are neighbors
    names = [info.class_names[label] for label in info.labels]
    return TileGrid(
        ids=info.ids,
        index=info.index,
        cells=rows * info.per_class + positions,
        first=("",) * len(rows),
        second=("",) * len(rows),
        amounts=("",) * len(rows),
        wrong=np.zeros(len(rows), dtype=np.bool_),
        words=tuple((name, image) for name, image in zip(names, info.ids.tolist(), strict=True)),
        pairs=tuple((label, label) for label in info.labels.tolist()),
        row_labels=tuple(info.class_names[label] for label in shown),
        columns=info.per_class,
    )


def tiles_grid(info: MostConfident | HardButCorrect | Misclassified) -> TileGrid | None:
    """The images in their order, with the true class and the answer under each; None without images."""
    tiles = info.tiles
    if not len(tiles):
        return None
    total = min(len(tiles), MAX_TILES)
    names, short = tiles.class_names, telling(tiles.class_names, CAPTION_LIMIT)

    def each(describe: Callable[[int], str]) -> tuple[str, ...]:
        return tuple(describe(tile) for tile in range(total))

    def second(tile: int) -> str:
        return "" if tiles.labels[tile] == tiles.predicted[tile] else f"→ {short[tiles.predicted[tile]]}"

    def words(tile: int) -> tuple[str, ...]:
        true, predicted = names[tiles.labels[tile]], names[tiles.predicted[tile]]
        sure, own = percent(tiles.confidence[tile]), percent(tiles.true_probability[tile])
        said = (f"taken for {predicted}, {sure} sure", f"{own} for {true}")
        return (true, *(said if true != predicted else (f"recognized, {sure} sure",)), str(tiles.ids[tile]))

    return TileGrid(
        ids=tiles.ids[:total],
        index=tiles.index[:total],
        cells=np.arange(total),
        first=each(lambda tile: short[tiles.labels[tile]]),
        second=each(second),
        amounts=each(lambda tile: percent(tiles.confidence[tile])),
        wrong=(tiles.labels != tiles.predicted)[:total],
        words=tuple(words(tile) for tile in range(total)),
        pairs=tuple(zip(tiles.labels[:total].tolist(), tiles.predicted[:total].tolist(), strict=True)),
        left_out=len(tiles) - total,
    )
