"""The queue before a model: nobody's answer depends on company, and nobody fails for another."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from servers import until

from lucidate.core.run import RunDir
from lucidate.serve.engine import Engine
from lucidate.serve.errors import BadRequest, Expired, Overloaded, RequestError
from lucidate.serve.graph import open_graph

SIZE = 4


class Sums:
    """A model whose logits are an image's sum and its negative; it can be held, and fails on images that are 255."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()

    def run(self, output_names: Sequence[str], input_feed: dict[str, Any]) -> list[NDArray[np.float32]]:
        assert tuple(output_names) == ("logits",)
        images = input_feed["images"]
        self.batches.append(len(images))
        self.entered.set()
        assert self.free.wait(30)
        if (images.reshape(len(images), -1).min(1) == 255).any():
            raise RuntimeError("an image that the model cannot stand")
        return [truth(images)]


def truth(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    sums = images.reshape(len(images), -1).sum(1).astype(np.float32)
    return np.stack([sums, -sums], 1)


def some(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 200, (count, SIZE, SIZE, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), min_size=1, max_size=25),
    max_batch=st.integers(1, 6),
)
def test_any_interleaving_answers_as_one_by_one(requests: list[tuple[int, bool, bool]], max_batch: int) -> None:
    """requests: images, whether to let others run before the next one, whether to cancel it."""
    session = Sums()

    async def main() -> list[Any]:
        engine = Engine(session, queue_images=1000, max_batch=max_batch)
        tasks = []
        for number, (count, pause, cancel) in enumerate(requests):
            tasks.append(asyncio.create_task(engine.infer(some(count, seed=number))))
            if pause:
                await asyncio.sleep(0)
            if cancel:
                tasks[-1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert engine.depth() == 0
        return answers

    for number, (answer, (count, _, cancel)) in enumerate(zip(asyncio.run(main()), requests, strict=True)):
        if cancel:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            np.testing.assert_array_equal(answer, truth(some(count, seed=number)))
    assert max(session.batches, default=0) <= max_batch


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=12), max_batch=st.integers(1, 16))
def test_a_network_answers_alone_as_in_company(untrained: RunDir, counts: list[int], max_batch: int) -> None:
    session = open_graph(untrained, views="one", int8=False, threads=1)
    images = np.random.default_rng(sum(counts)).integers(0, 256, (sum(counts), 32, 32, 3), dtype=np.uint8)
    parts = np.split(images, np.cumsum(counts)[:-1])

    async def main() -> list[NDArray[np.float32]]:
        engine = Engine(session, queue_images=1000, max_batch=max_batch)
        return await asyncio.gather(*(engine.infer(part) for part in parts))

    together = np.concatenate(asyncio.run(main()))
    alone = np.concatenate([session.run(["logits"], {"images": image[None]})[0] for image in images])
    # A product of one row is summed in another order than one of many: not the same bits, but the same to 1e-6.
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-5)
    both = [np.exp(x - x.max(1, keepdims=True)) for x in (together.astype(np.float64), alone.astype(np.float64))]
    np.testing.assert_allclose(*(x / x.sum(1, keepdims=True) for x in both), rtol=0, atol=1e-6)


def test_what_waits_is_computed_together_and_nobody_waits_for_company() -> None:
    session = Sums()

    async def main() -> None:
        engine = Engine(session, queue_images=100, max_batch=8)
        session.free.clear()
        first = asyncio.create_task(engine.infer(some(1)))
        await asyncio.to_thread(session.entered.wait)  # it has begun alone, at once
        others = [asyncio.create_task(engine.infer(some(2, seed=k))) for k in range(5)]
        await asyncio.sleep(0)
        assert engine.depth() == 11
        session.free.set()
        await asyncio.gather(first, *others)
        known = engine.statistics
        assert session.batches == [1, 8, 2]
        assert {size: taken.count for size, (taken, _, _) in known.batches.items()} == {1: 1, 8: 1, 2: 1}
        assert (known.images, known.executions, known.success.count, known.queue.count) == (11, 3, 6, 6)
        assert known.compute_infer.ns > 0

    asyncio.run(main())


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    session = Sums()

    async def main() -> None:
        engine = Engine(session, queue_images=10, max_batch=4)
        session.free.clear()
        admitted = [asyncio.create_task(engine.infer(some(3, seed=k))) for k in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await engine.infer(some(2))
        assert refused.value.status == 429
        assert int(refused.value.headers["Retry-After"]) >= 1
        with pytest.raises(BadRequest, match="at most 10 in one request, received 11"):
            await engine.infer(some(11))
        last = asyncio.create_task(engine.infer(some(1)))
        session.free.set()
        for number, answer in enumerate(await asyncio.gather(*admitted)):
            np.testing.assert_array_equal(answer, truth(some(3, seed=number)))
        np.testing.assert_array_equal(await last, truth(some(1)))
        assert engine.statistics.refused == 2

    asyncio.run(main())


def test_a_large_request_is_computed_in_parts() -> None:
    session = Sums()
    engine_answer = asyncio.run(_infer(session, some(23), max_batch=5))
    np.testing.assert_array_equal(engine_answer, truth(some(23)))
    assert session.batches == [5, 5, 5, 5, 3]


async def _infer(session: Sums, images: NDArray[np.uint8], *, max_batch: int) -> NDArray[np.float32]:
    return await Engine(session, queue_images=100, max_batch=max_batch).infer(images)


def test_what_is_canceled_is_not_computed() -> None:
    session = Sums()

    async def main() -> None:
        engine = Engine(session, queue_images=10, max_batch=4)
        session.free.clear()
        first = asyncio.create_task(engine.infer(some(1)))
        await asyncio.to_thread(session.entered.wait)
        gone = [asyncio.create_task(engine.infer(some(4))) for _ in range(2)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        assert engine.depth() == 1  # their room is free at once
        stays = asyncio.create_task(engine.infer(some(2)))
        session.free.set()
        await asyncio.gather(first, stays)
        assert session.batches == [1, 2]
        assert engine.statistics.canceled == 2

    asyncio.run(main())


def test_what_has_expired_keeps_no_images() -> None:
    """Without a collection of garbage, which is rare in a server."""
    session = Sums()

    async def main() -> weakref.ref[NDArray[np.uint8]]:
        engine = Engine(session, queue_images=10, max_batch=4)
        session.free.clear()
        first = asyncio.create_task(engine.infer(some(1)))
        await asyncio.to_thread(session.entered.wait)
        images = some(2)
        known = weakref.ref(images)
        try:
            await engine.infer(images, timeout=0.01)
        except Expired:
            pass
        else:
            raise AssertionError("it was answered")
        del images
        session.free.set()
        await first
        await engine.infer(some(1))  # the thread has let go of what was before
        return known

    gc.collect()
    gc.disable()
    try:
        known = asyncio.run(main())
        assert known() is None
    finally:
        gc.enable()


def test_what_is_late_is_told_so_in_time_and_not_computed() -> None:
    session = Sums()

    async def main() -> None:
        engine = Engine(session, queue_images=10, max_batch=4)
        session.free.clear()
        first = asyncio.create_task(engine.infer(some(1), timeout=0.001))
        await asyncio.to_thread(session.entered.wait)
        with pytest.raises(Expired) as late:  # while the model is still at work on the first
            await engine.infer(some(6), timeout=0.01)
        assert late.value.status == 504
        session.free.set()
        np.testing.assert_array_equal(await first, truth(some(1)))  # it had begun in time
        assert session.batches == [1]
        assert (engine.statistics.expired, engine.statistics.fail.count) == (1, 1)

    asyncio.run(main())


def test_one_bad_request_fails_alone() -> None:
    session = Sums()

    async def main() -> None:
        engine = Engine(session, queue_images=100, max_batch=16)
        session.free.clear()
        first = asyncio.create_task(engine.infer(some(1)))
        await asyncio.to_thread(session.entered.wait)
        bad = np.full((1, SIZE, SIZE, 3), 255, np.uint8)
        tasks = [asyncio.create_task(engine.infer(images)) for images in (some(2), bad, some(3, seed=3))]
        await asyncio.sleep(0)
        session.free.set()
        await first
        good, failed, also_good = await asyncio.gather(*tasks, return_exceptions=True)
        np.testing.assert_array_equal(good, truth(some(2)))
        np.testing.assert_array_equal(also_good, truth(some(3, seed=3)))
        assert isinstance(failed, RequestError)
        assert (failed.status, failed.message) == (500, "the model failed on this request")
        assert session.batches == [1, 6, 2, 1, 3]
        np.testing.assert_array_equal(await engine.infer(some(1, seed=9)), truth(some(1, seed=9)))

    asyncio.run(main())


def test_an_engine_ends_with_its_last_reference() -> None:
    before = set(threading.enumerate())
    threads: list[threading.Thread] = []

    async def main() -> None:
        engine = Engine(Sums(), queue_images=10, max_batch=4)
        threads.extend(t for t in threading.enumerate() if t not in before and t.name == "inference")
        await engine.infer(some(1))
        task = asyncio.create_task(engine.infer(some(1)))
        del engine
        np.testing.assert_array_equal(await task, truth(some(1)))  # a request holds it

    asyncio.run(main())
    assert len(threads) == 1
    gc.collect()
    until(lambda: not threads[0].is_alive())
