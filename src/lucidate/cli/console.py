"""How the command line speaks: bars on a terminal, plain lines elsewhere, one JSON object where it is asked for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from lucidate.core.machine import processes
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import jsonable
from lucidate.core.text import plain

QUIET_SECONDS = 10.0  # between two plain lines about the same task


class Lines:
    """Plain lines on standard error, for logs and pipes."""

    def __init__(self) -> None:
        self._task, self._start, self._last = "", 0.0, 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

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

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(plain(text), markup=False, highlight=False)

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(plain(task), total=total, note=note)
        self._progress.update(self._tasks[task], completed=done, note=note)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(task))


class Quiet(Silent):
    """For a process that trains along with one that speaks."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def reporter() -> Lines | Bars | Quiet:
    """Whichever fits standard error; use it as a context manager."""
    if processes()[0]:
        return Quiet()
    return Bars() if sys.stderr.isatty() else Lines()


def emit(result: dict[str, Any], text: str | Sequence[str], *, as_json: bool) -> None:
    """The outcome of a command, last on standard output: words, or one JSON object.

    text: as lines where names that others gave stand in it: a line end within such a name is no new line then.
    """
    if processes()[0]:
        return  # of processes that train together, the first one speaks
    lines = text.split("\n") if isinstance(text, str) else text
    print(json.dumps(jsonable(result), allow_nan=False) if as_json else "\n".join(map(plain, lines)), flush=True)


def rendered(table: Table) -> str:
    """A table as text, as wide as its cells ask for: cut, its numbers would be of no use in a log."""
    console = Console(width=10_000, no_color=True)
    console = Console(width=Measurement.get(console, console.options, table).maximum, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def say_set_aside(set_aside: list[dict[str, str]], *, to: Reporter, shown: int = 10) -> None:
    """List the images that could not be used, and why."""
    if not set_aside:
        return
    to.say(f"{len(set_aside)} files set aside:" if len(set_aside) > 1 else "1 file set aside:")
    for item in set_aside[:shown]:
        to.say(f"  {item['path']}: {item['reason']}")
    if len(set_aside) > shown:
        to.say(f"  … and {len(set_aside) - shown} more (lucidate data info lists all)")
