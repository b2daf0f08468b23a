"""What a request's content makes long is done in a thread; where it is short the event loop has the time for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

LARGE = 262_144  # bytes of a form, of JSON or of pixels: below, they take about a millisecond, of the worst JSON ten
T = TypeVar("T")


async def apart(size: int, work: Callable[[], T]) -> T:
    """What `work` returns, which takes apart or puts together about `size` bytes. Raises what it raises."""
    if size < LARGE:
        return work()
    return await asyncio.get_running_loop().run_in_executor(None, work)
