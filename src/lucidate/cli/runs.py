"""`lucidate runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from lucidate.cli import console
from lucidate.cli.options import Json
from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs.")]


def runs(folder: Folder = Path("runs"), json: Json = False) -> None:
    """List the runs in a folder: data, model, accuracies, when they were made; the newest last.

    Example: lucidate runs
    """
    if not folder.is_dir():
        raise LucidateError(
            f"runs: expected a folder of runs, but there is no {folder}; make a run with: lucidate run digits"
        )
    found, unreadable = [], []
    for path in sorted(folder.rglob("run.json")):
        try:
            found.append(_row(path.parent, RunCard.load(path)))
        except LucidateError as error:
            unreadable.append(str(error))
    found.sort(key=lambda row: row["created"])
    table = Table(box=None, pad_edge=False)
    for name in ("run", "data", "model", "status", "validation", "test", "made"):
        table.add_column(name, justify="right" if name in ("validation", "test") else "left", no_wrap=True)
    for row in found:
        accuracies = ("" if row[key] is None else f"{row[key]:.4f}" for key in ("val_accuracy", "test_accuracy"))
        table.add_row(row["run"], row["data"], row["model"], row["status"], *accuracies, row["created"][:16])
    text = console.rendered(table) if found else f"no run in {folder}; make one with: lucidate run digits"
    console.emit({"runs": found, "unreadable": unreadable}, [*text.splitlines(), *unreadable], as_json=json)


def _row(path: Path, card: RunCard) -> dict[str, Any]:
    return {
        "run": str(path),
        "data": card.data.dataset,
        "model": card.model.name,
        "status": card.status,
        "val_accuracy": card.results.val_accuracy,
        "test_accuracy": card.results.test_accuracy,
        "created": card.created,
    }
