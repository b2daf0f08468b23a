"""`lucidate distill`."""

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
    from lucidate.analysis.studies import Distillation

Teacher = Annotated[
    Path, typer.Option("--teacher", metavar="RUN", help="Who teaches: a run, or the file of a model from elsewhere.")
]
Student = Annotated[
    str, typer.Option("--recipe", metavar="RECIPE", help="The student: a TOML file, or the name of a shipped recipe.")
]
Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the runs go; the same DIR goes on. (default: runs/distill)")
]
Source = Annotated[
    str | None, typer.Option(metavar="SRC", help="digits, cifar10, or a path to images. (default: the teacher's)")
]
Seeds = Annotated[
    int, typer.Option(metavar="N", help="Students of each kind, by the recipe's seed and those after it.")
]


def distill(
    teacher: Teacher,
    recipe: Student = "edge",
    data: Source = None,
    out: Folder = None,
    seeds: Seeds = 3,
    set_: Set = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a small model by a trained one's answers, and the same alone; compare accuracy, size and speed.

    Students see the teacher's training images in its division, unless --data and --set data.KEY=VALUE say otherwise;
    --set distill.temperature=T and --set distill.weight=W change how they are taught. What was stopped goes on with
    the same command.

    Example: lucidate distill --teacher models/cifar10-fastnet --recipe edge --data FOLDER --set data.train_size=10000
    """
    run, folder = stages.open_run(teacher), out or fresh_path(Path("runs"), "distill")
    chosen = stages.pick_device(device)
    from lucidate.studies.distill import RESULT, distill_run

    with console.reporter() as reporter, stopping() as stop:
        try:
            result = distill_run(
                run,
                recipe,
                folder,
                seeds=seeds,
                source=data,
                overrides=set_ or [],
                device=chosen,
                command=" ".join(["lucidate", *sys.argv[1:]]),
                reporter=reporter,
                stop=stop,
            )
        except Interrupted as error:
            again = "the same command" if out else f"the same command and --out {folder}"
            raise Interrupted(f"{error}; it is saved, go on with {again}") from None
    table = result.table
    answer = {
        "teacher": str(teacher),
        "gain": table.gain,
        "p": table.p,
        **jsonable(table),
        "headline": table.headline,
        "table": str(result.written),
        "result": str(folder / RESULT),
        "out": str(folder),
    }
    lines = [shown(table), "", *table.arrows(), "", table.headline, *table.notes, str(result.written)]
    console.emit(answer, "\n".join(lines), as_json=json)


def shown(table: Distillation) -> str:
    """The table as text."""
    from lucidate.analysis.studies import HEADINGS, RIGHT

    printed = Table(box=None, pad_edge=False)
    for name in HEADINGS:
        printed.add_column(name, justify="right" if name in RIGHT else "left", no_wrap=True)
    for row in table.rows:
        printed.add_row(*row.cells())
    return console.rendered(printed)
