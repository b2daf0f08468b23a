"""Every figure of the gallery, in the order of `Findings`.

To add one: its question (a file in `lucidate.analysis`, and its entry in `Findings`), and a file here that draws the
answer and says in FIGURES where it stands. Files are found; that of other pages (comparison) has no FIGURES.
"""

from __future__ import annotations

from dataclasses import fields, replace
from importlib import import_module
from pkgutil import iter_modules

from lucidate.analysis.findings import Findings
from lucidate.report import figures
from lucidate.report.figures import tile_grid
from lucidate.report.figures.entry import DATA, IMAGES, FigureEntry, Info

FEW = 12  # mistakes: one page shows them all, and the others would only repeat it
FOLDED = ("top_confusions", "most_confident_wrong")  # what that page stands for too


def _grid(file: str, title: str, question: str) -> FigureEntry:
    return FigureEntry(f"{{dataset}}_{file}", title, IMAGES, question, "grid", grid=tile_grid.tiles_grid)


EXAMPLES, ONE_PERCENT = "examples_per_class", "top 1\N{NO-BREAK SPACE}%"
SUREST = "top_1_percent_{}_predictions"
GRIDS = (
    FigureEntry(EXAMPLES, "Examples of each class", DATA, EXAMPLES, "grid", grid=tile_grid.examples_grid),
    _grid(SUREST.format("wrong"), f"Surest mistakes: {ONE_PERCENT} of wrong predictions", "most_confident_wrong"),
    _grid("misclassification_grid", "A sample of all mistakes", "misclassified"),
    _grid("hard_prediction_grid", "Right, but only just", "hard_but_correct"),
    _grid(SUREST.format("correct"), f"Surest hits: {ONE_PERCENT} of right predictions", "most_confident_right"),
)


def _all_figures() -> tuple[FigureEntry, ...]:
    """The grids, and what the files of this package say that they draw, in the order of `Findings`."""
    names = [module.name for module in iter_modules(figures.__path__) if module.name != "catalog"]
    modules = [import_module(f"{figures.__name__}.{name}") for name in names]
    entries = [*GRIDS, *(entry for module in modules for entry in getattr(module, "FIGURES", ()))]
    order = [field.name for field in fields(Findings)]
    return tuple(sorted(entries, key=lambda entry: order.index(entry.question)))


FIGURES = _all_figures()


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
