"""Requests in, logits out: a bounded queue before one thread that computes whatever is waiting, together.

No request waits for company: the thread takes what there is, up to `max_batch` images, as soon as it is free. Counters
are touched by the event loop alone, so that they need no locks.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import perf_counter_ns, time_ns
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lucidate.serve.errors import BadRequest, Expired, Overloaded, RequestError

INPUT, OUTPUT = "images", "logits"  # of every graph that is served
PROBABILITIES, LOGITS = "probabilities", "logits"  # what a client can ask for
STEPS = ("compute_input", "compute_infer", "compute_output")


class Session(Protocol):
    """What the engine asks of ONNX Runtime."""

    def run(self, output_names: Sequence[str], input_feed: dict[str, Any]) -> Any: ...


@dataclass
class Duration:
    """How often something happened, and how long it took altogether."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, *, count: int = 1) -> None:
        self.count += count
        self.ns += ns


@dataclass
class Statistics:
    """What an engine has done since it was made. Durations of requests, but `batches`: of executions by their size."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, tuple[Duration, Duration, Duration]] = field(default_factory=dict)
    images: int = 0
    executions: int = 0
    last_inference: int = 0  # milliseconds since 1970
    refused: int = 0
    expired: int = 0
    canceled: int = 0


@dataclass(slots=True, eq=False)
class _Item:
    """Images that one request asked for, and where their logits go."""

    images: NDArray[np.uint8]
    future: asyncio.Future[NDArray[np.float32]]
    arrived: int
    taken: bool = False


Answer = NDArray[np.float32] | None  # logits of an item's images, None where the model failed on them


class Engine:
    """Computes logits, in the order of admission. An engine ends with its last reference.

    session: a graph with an input "images", (n, S, S, 3) uint8, and an output "logits", (n, K) float32.
    queue_images: waiting or in work at one time. max_batch: computed together.
    """

    def __init__(self, session: Session, *, queue_images: int, max_batch: int) -> None:
        self.queue_images = queue_images
        self.max_batch = max_batch
        self.statistics = Statistics()
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._depth = 0
        # The thread knows the queue, never the engine: or the engine would live as long as its thread.
        arguments = (self._queue, session, max_batch, weakref.WeakMethod(self._deliver))
        threading.Thread(target=_work, args=arguments, name="inference", daemon=True).start()
        weakref.finalize(self, self._queue.put, None)

    def depth(self) -> int:
        """Images admitted and not yet answered."""
        return self._depth

    def require_capacity(self, images: int = 1) -> None:
        """Raise Overloaded where so many more would be too many: before an image is decoded for nothing."""
        if self._depth + images > self.queue_images:
            self.statistics.refused += 1
            raise Overloaded("the queue is full; come again later")

    async def infer(self, images: NDArray[np.uint8], *, timeout: float | None = None) -> NDArray[np.float32]:
        """Logits (n, K) of images (n, S, S, 3). timeout: seconds until its computing must have begun.

        More than `max_batch` images are computed in parts. A canceled call leaves the queue.
        Raises BadRequest for more images than the queue holds, Overloaded where it is full, Expired, and RequestError
        (500) where the model fails.
        """
        count = len(images)
        if count > self.queue_images:
            self.statistics.refused += 1
            raise BadRequest(f"images: expected at most {self.queue_images} in one request, received {count}")
        self.require_capacity(count)
        loop = asyncio.get_running_loop()
        now = perf_counter_ns()
        items = [
            _Item(images[start : start + self.max_batch], loop.create_future(), now)
            for start in range(0, max(count, 1), self.max_batch)
        ]
        self._depth += count
        timer = None if timeout is None else loop.call_later(timeout, _expire, items)
        for item in items:
            self._queue.put(item)
        try:
            if len(items) == 1:
                logits = await items[0].future
            else:
                logits = np.concatenate(await asyncio.gather(*(item.future for item in items)))
            self.statistics.success.add(perf_counter_ns() - now)
            return logits
        except asyncio.CancelledError:
            self.statistics.canceled += 1
            raise
        except RequestError as error:
            self.statistics.expired += isinstance(error, Expired)
            self.statistics.fail.add(perf_counter_ns() - now)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            for item in items:
                item.future.cancel()  # those that are done do not mind
            # An error in a future knows this frame, which must not know the future: the images would stay with it.
            items.clear()
            del item
            self._depth -= count

    def _deliver(self, items: list[_Item], answers: list[Answer], began: int, stacked: int, computed: int) -> None:
        """On the event loop: count a batch, and hand its logits to whoever still waits."""
        known, size, count = self.statistics, sum(len(item.images) for item in items), len(items)
        steps = (stacked - began, computed - stacked, perf_counter_ns() - computed)
        of_size = known.batches.setdefault(size, (Duration(), Duration(), Duration()))
        for name, total, ns in zip(STEPS, of_size, steps, strict=True):
            getattr(known, name).add(ns * count, count=count)
            total.add(ns)
        known.last_inference = time_ns() // 1_000_000
        known.images += size
        known.executions += 1
        for item, answer in zip(items, answers, strict=True):
            known.queue.add(began - item.arrived)
            if item.future.done():
                continue  # the client has gone meanwhile
            if answer is None:
                item.future.set_exception(RequestError("the model failed on this request"))
            else:
                item.future.set_result(answer)


def _expire(items: list[_Item]) -> None:
    for item in items:
        if not (item.taken or item.future.done()):
            item.future.set_exception(Expired("the request's time was over before it was computed"))


def _work(queue: SimpleQueue[_Item | None], session: Session, max_batch: int, deliver: weakref.WeakMethod[Any]) -> None:
    """The thread: batches until None comes."""
    held: deque[_Item] = deque()
    while True:
        items, ended = _take(queue, held, max_batch)
        if items:
            batch = _compute(session, items)
            hand_over = deliver()
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                if hand_over is not None:
                    items[0].future.get_loop().call_soon_threadsafe(hand_over, items, *batch)
            del batch, hand_over, items  # nothing of a request outlives it while the thread sleeps
        if ended:
            return


def _take(queue: SimpleQueue[_Item | None], held: deque[_Item], max_batch: int) -> tuple[list[_Item], bool]:
    """What waits, up to `max_batch` images and in its order, and whether the end has come; waits for the first."""
    items: list[_Item] = []
    capacity = max_batch
    while capacity > 0:
        if held:
            item: _Item | None = held.popleft()
        elif items:
            try:
                item = queue.get_nowait()
            except Empty:
                break
        else:
            item = queue.get()
        if item is None:
            return items, True
        if item.future.done():  # canceled, or expired
            item = None  # not to be held while this waits for the next
            continue
        if len(item.images) > capacity:
            held.append(item)
            break
        item.taken = True
        items.append(item)
        capacity -= len(item.images)
    return items, False


def _compute(session: Session, items: list[_Item]) -> tuple[list[Answer], int, int, int]:
    """One answer an item; when it began, when the images were together, when their logits were."""
    began = stacked = perf_counter_ns()
    answers: list[Answer]
    try:
        images = items[0].images if len(items) == 1 else np.concatenate([item.images for item in items])
        stacked = perf_counter_ns()
        logits = session.run((OUTPUT,), {INPUT: images})[0]
        ends = np.cumsum([len(item.images) for item in items])[:-1]
        answers = [logits] if len(items) == 1 else np.split(logits, ends)
    except Exception:  # whatever a runtime raises
        # Each alone, so that one bad request fails nobody but itself.
        answers = [_compute(session, [item])[0][0] for item in items] if len(items) > 1 else [None]
    return answers, began, stacked, perf_counter_ns()
