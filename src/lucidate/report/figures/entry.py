"""What the gallery knows of a figure: an Info of `Findings`, and what draws it in both libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import matplotlib as mpl
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.findings import Findings
from lucidate.report.figures import frame, rows, tile_grid
from lucidate.report.sprites import Sprite, make_sprite

DATA, TRAINING, ERRORS, TRUST = "The data", "Training", "Where it errs", "How sure it is"
IMAGES = "Images worth a look"


class Info(Protocol):
    """What analyze answers a question with."""

    @property
    def headline(self) -> str: ...

    def frame(self) -> pd.DataFrame: ...


@dataclass(frozen=True)
class FigureEntry:
    """A figure's place in the gallery.

    file: name of its page and picture; "{dataset}" stands for the data set's slug. question: Findings' field.
    kind: how much room it takes. It is drawn from what `rows` or `grid` make of its Info, None where there is nothing
    to draw, or else by its own drawings, draw_plotly(info) and draw_matplotlib(info, title, style). note: how to read
    it, where that is not plain; rows have their own.
    """

    file: str
    title: str
    group: str
    question: str
    kind: Literal["chart", "matrix", "grid"] = "chart"
    rows: Callable[[Any], rows.RowChart | None] | None = None
    grid: Callable[[Any], tile_grid.TileGrid | None] | None = None
    drawings: tuple[Callable[[Any], go.Figure], Callable[[Any, str, frame.StaticStyle], Figure]] | None = None
    note: Callable[[Any], str] | None = None

    def info(self, findings: Findings) -> Info | None:
        """The finding it draws; None when the question could not be asked."""
        info: Info | None = getattr(findings, self.question)
        return info

    def sprite(self, info: Info, pixels: NDArray[np.uint8], *, url: str = "") -> Sprite | None:
        """The images of a grid, from the packed store (N, H, W, 3); None for charts and empty grids."""
        grid = self.grid(info) if self.grid else None
        if not grid:
            return None
        place: dict[str, Any] = {"ids": grid.ids, "cells": grid.cells, "columns": grid.columns, "gaps": grid.gaps}
        return make_sprite(pixels, grid.index, **place, url=url)

    def interactive(self, info: Info, sprite: Sprite | None = None) -> go.Figure:
        """The Plotly drawing. sprite: of a grid that has images."""
        if self.drawings:
            return self.drawings[0](info)
        if self.rows and (chart := self.rows(info)):
            return rows.draw_plotly(chart)
        if sprite and self.grid and (grid := self.grid(info)):
            return tile_grid.draw_plotly(grid, sprite)
        return frame.empty_plotly(info.headline)

    def static(self, info: Info, sprite: Sprite | None = None, *, style: frame.StaticStyle = frame.PNG) -> Figure:
        """The Matplotlib drawing, under the house settings. sprite: of a grid that has images."""
        with mpl.rc_context(frame.matplotlib_settings(style)):  # type: ignore[arg-type]
            if self.drawings:
                return self.drawings[1](info, self.title, style)
            if self.rows and (chart := self.rows(info)):
                return rows.draw_matplotlib(chart, self.title, style)
            if sprite and self.grid and (grid := self.grid(info)):
                return tile_grid.draw_matplotlib(grid, sprite, title=self.title)
            return frame.empty_matplotlib(self.title, info.headline)

    def hint(self, info: Info) -> str:
        """How to read the drawing."""
        chart = self.rows(info) if self.rows else None
        return self.note(info) if self.note else chart.note if chart else ""
