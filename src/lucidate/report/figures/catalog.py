"""Every figure of the gallery, in its order: an Info of `Findings`, and two thin drawings of it.

To add one: a file with `draw_plotly(info)` and `draw_matplotlib(info)`, and an entry in `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lucidate.analysis.findings import Findings
from lucidate.report.figures import (
    class_distribution,
    confidence,
    confusion_matrix,
    curves,
    frame,
    per_class_accuracy,
    tile_grid,
    tile_layout,
    top_confusions,
    true_probability,
)
from lucidate.report.figures.tile_layout import TileGrid
from lucidate.report.sprites import Sprite, make_sprite


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


def _chart(file: str, group: str, question: str, module: Any, *, title: str = "", kind: Any = "chart") -> FigureEntry:
    name = title or module.TITLE
    draw = {"draw_plotly": module.draw_plotly, "draw_matplotlib": module.draw_matplotlib}
    return FigureEntry(file, name, group, question, kind, **draw, note=getattr(module, "note", None))


def _grid(file: str, title: str, group: str, question: str, grid: Callable[[Any], TileGrid | None]) -> FigureEntry:
    return FigureEntry(file, title, group, question, "grid", grid=grid)


DATA, TRAINING, ERRORS, TRUST, IMAGES = (
    "The data",
    "Training",
    "Where it errs",
    "How sure it is",
    "Images worth a look",
)

SAMPLE = "A sample of all mistakes"
FEW = 12  # mistakes: one page shows them all, and the others would only repeat it
FOLDED = ("top_confusions", "most_confident_wrong")  # what that page stands for too

FIGURES: tuple[FigureEntry, ...] = (
    _chart("class_distribution", DATA, "class_distribution", class_distribution),
    _grid("examples_per_class", "Examples of each class", DATA, "examples_per_class", tile_layout.examples_grid),
    _chart("{dataset}_acc", TRAINING, "accuracy_curve", curves, title=curves.TITLES["accuracy"]),
    _chart("{dataset}_loss", TRAINING, "loss_curve", curves, title=curves.TITLES["loss"]),
    _chart("{dataset}_confusion_matrix", ERRORS, "confusion_matrix", confusion_matrix, kind="matrix"),
    _chart("{dataset}_top_confusions", ERRORS, "top_confusions", top_confusions),
    _chart("{dataset}_per_class_accuracy", ERRORS, "per_class_accuracy", per_class_accuracy),
    _chart("{dataset}_avg_confidence_per_true_class", TRUST, "true_class_probability", true_probability),
    _chart("{dataset}_confidence_hist", TRUST, "confidence", confidence),
    _grid(
        "{dataset}_top_1_percent_wrong_predictions",
        "Surest mistakes: top 1\N{NO-BREAK SPACE}% of wrong predictions",
        IMAGES,
        "most_confident_wrong",
        tile_layout.confident_grid,
    ),
    _grid(
        "{dataset}_misclassification_grid",
        SAMPLE,
        IMAGES,
        "misclassified",
        tile_layout.misclassified_grid,
    ),
    _grid(
        "{dataset}_hard_prediction_grid",
        "Right, but only just",
        IMAGES,
        "hard_but_correct",
        tile_layout.hard_grid,
    ),
    _grid(
        "{dataset}_top_1_percent_correct_predictions",
        "Surest hits: top 1\N{NO-BREAK SPACE}% of right predictions",
        IMAGES,
        "most_confident_right",
        tile_layout.confident_grid,
    ),
)


def figures_of(findings: Findings) -> list[tuple[FigureEntry, Info]]:
    """The figures that there is something to draw for; the pages of few mistakes, or of none, are one."""
    asked = [(entry, info) for entry in FIGURES if (info := entry.info(findings)) is not None]
    errors = findings.summary.errors
    if errors > FEW:
        return asked
    title = "All mistakes" if errors > 1 else "The only mistake" if errors else "No mistakes"
    return [
        (replace(entry, title=title) if entry.question == "misclassified" else entry, info)
        for entry, info in asked
        if entry.question not in FOLDED
    ]
