"""One loop over any predictor, with progress and rate, and the table of what it says."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import Predictions
from lucidate.data.pack import Pack
from lucidate.data.packed import read_rows

if TYPE_CHECKING:
    from lucidate.models.predictor import Predictor  # torch takes a second, which graphs need not wait

T = TypeVar("T", bound=Sized)


class Stopwatch:
    """Seconds of predicting, added up; without finding images, packing them, loading weights."""

    def __init__(self) -> None:
        self._seconds, self._start = 0.0, 0.0
        self._runs = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside."""
        self._start, self._runs = time.perf_counter(), True
        try:
            yield
        finally:
            self._seconds, self._runs = self.seconds, False

    @property
    def seconds(self) -> float:
        """Counted so far, also while it runs."""
        return self._seconds + (time.perf_counter() - self._start if self._runs else 0.0)

    def rate(self, images: int) -> float:
        """Images a second, if so many were done."""
        return images / max(self.seconds, 1e-9)


def with_progress(
    batches: Iterable[T], total: int, *, task: str, reporter: Reporter | None = None, watch: Stopwatch | None = None
) -> Iterator[T]:
    """Each batch as it comes, of `total` images; once it is done with, the reporter hears of it, and of the rate."""
    reporter, watch, done = reporter or Silent(), watch or Stopwatch(), 0
    with watch.running():
        for batch in batches:
            yield batch
            done += len(batch)
            reporter.advance(task, done, total, f"{watch.rate(done):,.0f} images/s")


def predict_rows(
    predictor: Predictor,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    reporter: Reporter | None = None,
    task: str = "predicting",
    watch: Stopwatch | None = None,
) -> NDArray[np.float32]:
    """Logits (M, K) of some rows (M,) of a store (N, S, S, 3), in order. watch: times it."""
    size = predictor.batch_size
    batches = (predictor.start(read_rows(images, rows[first : first + size])) for first in range(0, len(rows), size))
    return predictor.collect(list(with_progress(batches, len(rows), task=task, reporter=reporter, watch=watch)))


def table_of(
    pack: Pack, rows: NDArray[np.int64], logits: NDArray[np.float32], *, split: str, model: str
) -> Predictions:
    """Answers on the pack's own labels. rows: (M,) into the pack. logits: (M, K), in the pack's order of classes."""
    return Predictions(
        ids=pack.ids[rows],
        index=rows,
        labels=pack.labels[rows],
        logits=logits,
        class_names=pack.class_names,
        dataset=pack.dataset,
        split=split,
        model=model,
    )
