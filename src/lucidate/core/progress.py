"""How long work tells where it is, without knowing who listens. Only `cli` prints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")
MOMENT = 0.5  # seconds before the first report of progress, and between two


class Reporter(Protocol):
    """Told of progress by any stage; the command line draws it as a bar or as plain lines."""

    def say(self, text: str) -> None:
        """One finished line of news."""

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `task`; the task ends when they are equal."""


class Silent:
    """A reporter that says nothing: the default of every function that takes one."""

    def say(self, text: str) -> None:
        pass

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        pass


def with_progress(items: Sequence[T], task: str, reporter: Reporter) -> Iterator[T]:
    """The items one by one; the reporter hears how far it is where that takes more than a moment."""
    last, silent = time.monotonic(), True
    for done, item in enumerate(items):
        if (now := time.monotonic()) - last >= MOMENT:
            last, silent = now, False
            reporter.advance(task, done, len(items))
        yield item
    if not silent:
        reporter.advance(task, len(items), len(items))
