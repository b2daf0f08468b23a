"""What the gallery knows of a figure: an Info of `Findings`, and two thin drawings of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.findings import Findings
from lucidate.report.figures import frame, tile_grid
from lucidate.report.figures.tile_layout import TileGrid
from lucidate.report.sprites import Sprite, make_sprite

DATA, TRAINING, ERRORS, TRUST, IMAGES = (
    "The data",
    "Training",
    "Where it errs",
    "How sure it is",
    "Images worth a look",
)


class Info(Protocol):
    """What analyze answers a question with."""

    @property
    def headline(self) -> str: ...

    def frame(self) -> pd.DataFrame: ...


@dataclass(frozen=True)
class FigureEntry:
    """A figure's place in the gallery.

    file: name of its page and picture; "{dataset}" stands for the data set's slug. question: Findings' field.
    kind: how much room it takes. draw_*: functions of the Info; a grid of images gives its grid instead, and is
    drawn from it and its sprite. note: how to read the drawing, where that is not plain.
    """

    file: str
    title: str
    group: str
    question: str
    kind: Literal["chart", "matrix", "grid"] = "chart"
    draw_plotly: Callable[[Any], go.Figure] | None = None
    draw_matplotlib: Callable[[Any], Figure] | None = None
    grid: Callable[[Any], TileGrid | None] | None = None
    note: Callable[[Any], str] | None = None

    def name(self, dataset: str) -> str:
        return self.file.format(dataset=dataset)

    def info(self, findings: Findings) -> Info | None:
        """The finding it draws; None when the question could not be asked."""
        info: Info | None = getattr(findings, self.question)
        return info

    def sprite(self, info: Info, pixels: NDArray[np.uint8], *, url: str = "") -> Sprite | None:
        """The images of a grid, from the packed store (N, H, W, 3); None for charts and empty grids."""
        grid = self.grid(info) if self.grid else None
        if not grid:
            return None
        return make_sprite(
            pixels,
            grid.index,
            ids=grid.ids,
            cells=grid.cells,
            columns=grid.columns,
            gaps=grid.gaps,
            url=url,
        )

    def interactive(self, info: Info, sprite: Sprite | None = None) -> go.Figure:
        """The Plotly drawing. sprite: of a grid that has images."""
        if self.draw_plotly is not None:
            return self.draw_plotly(info)
        grid = self.grid(info) if self.grid else None
        return tile_grid.draw_plotly(grid, sprite) if grid and sprite else frame.empty_plotly(info.headline)

    def static(self, info: Info, sprite: Sprite | None = None) -> Figure:
        """The Matplotlib drawing. sprite: of a grid that has images."""
        if self.draw_matplotlib is not None:
            return self.draw_matplotlib(info)
        grid = self.grid(info) if self.grid else None
        if grid and sprite:
            return tile_grid.draw_matplotlib(grid, sprite, title=self.title)
        return frame.empty_matplotlib(self.title, info.headline)
