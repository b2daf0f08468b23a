"""`lucidate levels`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lucidate.cli import console, stages
from lucidate.cli.interrupt import stopping
from lucidate.cli.options import Device, Json, Set
from lucidate.core.errors import Interrupted
from lucidate.core.records import jsonable
from lucidate.core.run import fresh_path

if TYPE_CHECKING:
    from lucidate.analysis.studies import LevelsTable

Source = Annotated[str, typer.Option(metavar="SRC", help="digits, cifar10, or a path to images.")]
Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the runs go; the same DIR goes on. (default: runs/levels)")
]


def levels(
    data: Source = "cifar10", out: Folder = None, set_: Set = None, device: Device = "auto", json: Json = False
) -> None:
    """Take a data set through the challenge: transfer, regularization, a custom network, an ensemble; then write it up.

    What was stopped goes on with the same command: finished levels are not repeated. --set levels.train_size=5000
    trains on fewer images, --set train.epochs=2 for fewer epochs, --set data.split=official keeps the source's own
    test split.

    Example: lucidate levels --data digits --out runs/levels
    """
    folder = out or fresh_path(Path("runs"), "levels")
    chosen = stages.pick_device(device)
    from lucidate.studies.levels import run_levels

    command = " ".join(["lucidate", *sys.argv[1:]])
    with console.reporter() as reporter, stopping() as stop:
        try:
            result = run_levels(
                data,
                folder,
                overrides=set_ or [],
                device=chosen,
                command=command,
                reporter=reporter,
                stop=stop,
            )
        except Interrupted as error:
            again = "the same command" if out else f"the same command and --out {folder}"
            raise Interrupted(f"{error}; it is saved, go on with {again}") from None
    answer = {
        "levels": [jsonable(level) for level in result.table.levels],
        "notes": list(result.table.notes),
        "gallery": str(result.gallery),
        "report": str(result.report),
        "out": str(folder),
    }
    text = "\n".join(
        [
            shown(result.table),
            result.table.headline,
            *result.table.notes,
            str(result.gallery.resolve()),
            str(result.report),
        ]
    )
    console.emit(answer, text, as_json=json)


def shown(table: LevelsTable) -> str:
    """The table as text."""
    from lucidate.analysis.formatting import points  # loads pandas

    printed = Table(box=None, pad_edge=False)
    for name, side in (
        ("level", "left"),
        ("model", "left"),
        ("weights", "left"),
        ("parameters", "right"),
        ("validation", "right"),
        ("test (95 % CI)", "right"),
        ("change", "right"),
        ("p", "right"),
        ("minutes", "right"),
        ("images/s", "right"),
    ):
        printed.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for level in table.levels:
        for position, row in enumerate((level, *level.members)):
            printed.add_row(
                f"{level.level} {level.title}" if position == 0 else "  member",
                row.model,
                row.origin,
                f"{row.parameters:,}",
                f"{row.val_accuracy:.4f}",
                f"{row.test_accuracy:.4f} ({row.test_low:.3f}–{row.test_high:.3f})",
                "" if row.change is None else points(row.change),
                "" if row.p is None else f"{row.p:.2g}",
                f"{row.seconds / 60:.1f}",
                f"{row.images_per_second:,.0f}" if row.images_per_second else "",
            )
    return console.rendered(printed)
