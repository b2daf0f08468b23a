"""Ctrl-C and SIGTERM while something is saved step by step: asked once, it stops in order; asked twice, at once.

Processes under torchrun stop in order however often they are asked: it passes signals on to those that have them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lucidate.core.machine import processes


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """A function that says whether the process has been asked to stop; the signals' handlers are given back."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and processes()[1] == 1:
            signal.default_int_handler(number, frame)
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
