"""How long work tells where it is, without knowing who listens. Only `cli` prints."""

from __future__ import annotations

from typing import Protocol


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
