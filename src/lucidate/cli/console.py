"""How the command line speaks: options that read the same everywhere, bars on a terminal and plain lines elsewhere, one
JSON object where it is asked for.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer import Argument, Option

from lucidate.core.machine import processes
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import jsonable
from lucidate.core.text import plain

# Help texts are read as markup: text in square brackets would vanish.
RUN = "A run folder, or a model from elsewhere: an .onnx or .keras file, or a TOML that names a timm model."
RunArgument = Annotated[Path, Argument(metavar="RUN", help=RUN)]
Json = Annotated[bool, Option("--json", help="Print one JSON object on standard output, last.")]
Split = Annotated[str, Option(metavar="SPLIT", help="train, validation or test.")]
Device = Annotated[str, Option(metavar="DEVICE", help="auto, cpu or cuda.")]
Out = Annotated[Path | None, Option(metavar="DIR", help="Where the run goes. (default: runs/RECIPE)")]
Set = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override a recipe key; may be repeated.")]
ShownImages = Annotated[
    bool, Option("--images/--no-images", help="Whether the report shows images, which may not be for everyone to see.")
]
Size = Annotated[int | None, Option(metavar="PIXELS", help="Side at which images are packed, 8 to 512.")]

QUIET_SECONDS = 10.0  # between two plain lines about the same task


class Lines:
    """Plain lines on standard error, for logs and pipes."""

    def __init__(self) -> None:
        self._task, self._start, self._last = "", 0.0, 0.0

    def say(self, text: str) -> None:
        print(plain(text), file=sys.stderr, flush=True)

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if task != self._task:
            self._task, self._start, self._last = task, now, now
        elif now - self._last >= QUIET_SECONDS and done < total:
            self._last = now
            left = (now - self._start) * (total - done) / max(done, 1)
            self.say(f"{task}: {done:,} of {total:,}{f', {note}' if note else ''}, {left:.0f} s left")


class Bars:
    """A progress bar a task, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        self._progress.console.print(plain(text), markup=False, highlight=False)

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(plain(task), total=total, note=note)
        self._progress.update(self._tasks[task], completed=done, note=note)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(task))


@contextmanager
def reporter() -> Iterator[Reporter]:
    """Whichever fits standard error."""
    if processes()[0]:
        yield Silent()  # of processes that train together, the first one speaks
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        note = TextColumn("{task.fields[note]}")
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), note, TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield Bars(progress)


def emit(result: dict[str, Any], text: str | Sequence[str], *, as_json: bool) -> None:
    """The outcome of a command, last on standard output: words, or one JSON object.

    text: as lines where names that others gave stand in it: a line end within such a name is no new line then.
    """
    if processes()[0]:
        return
    lines = text.split("\n") if isinstance(text, str) else text
    print(json.dumps(jsonable(result), allow_nan=False) if as_json else "\n".join(map(plain, lines)), flush=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()) -> str:
    """A table as text, never cut: its numbers would be of no use in a log. right: headings of right-aligned columns."""
    printed = Table(box=None, pad_edge=False)
    for name in headings:
        printed.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for row in rows:
        printed.add_row(*row)
    console = Console(width=10_000, no_color=True)
    console = Console(width=Measurement.get(console, console.options, printed).maximum, no_color=True)
    with console.capture() as capture:
        console.print(printed)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
