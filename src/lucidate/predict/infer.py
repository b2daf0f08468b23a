"""One loop over any predictor, with progress and rate; the tables of what models say of runs' own images.

Loads torch only where torch is what answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack
from lucidate.data.packed import read_rows
from lucidate.data.splits import open_data

if TYPE_CHECKING:
    import torch

    from lucidate.models.predictor import Predictor, TorchPredictor

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
    start: Callable[[NDArray[np.uint8]], Any] | None = None,
) -> NDArray[np.float32]:
    """Logits (M, K) of some rows (M,) of a store (N, S, S, 3), in order; or what `start` gives, in its place.

    watch: times it. start: of the predictor; its own `start`, where none is given.
    """
    size, start = predictor.batch_size, start or predictor.start
    batches = (start(read_rows(images, rows[first : first + size])) for first in range(0, len(rows), size))
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


def predict_run(
    run: RunDir,
    split: str,
    *,
    backend: str = "torch",
    predictor: Predictor | None = None,
    pack: Pack | None = None,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
    watch: Stopwatch | None = None,
    again: bool = False,
) -> Predictions:
    """Predict one split of a run's own images; keep the table and, of torch's answers, their accuracy in the run.

    This is where the test split is opened, which the run card counts: it belongs after every choice has been made.
    backend: a graph's table stands beside the one that torch made. predictor, pack: the backend, the run's images,
    where they are open already. watch: times the prediction itself. again: the accuracy is known, and only the table
    is missing: the run card stays as it is.
    """
    from lucidate.predict.backends import open_predictor, predictions_path

    data = open_data(run, pack=pack, reporter=reporter)
    card, pack, rows, task = data.card, data.pack, data.splits.rows(split), f"predicting {split}"
    predictor = predictor or open_predictor(backend, run, device=device)
    judged = backend == "torch" and split != "train" and not again
    views = judged and card.recipe.predict.views != "one"
    each = cast("TorchPredictor", predictor).start_views if views else None
    logits = predict_rows(predictor, pack.images, rows, reporter=reporter, task=task, watch=watch, start=each)
    logits, plain = (logits[:, 0], logits[:, 1]) if each else (logits, None)
    model = card.recipe.model.name if backend == "torch" else f"{card.recipe.model.name} ({backend})"
    predictions = table_of(pack, rows, logits, split=split, model=model)
    predictions.save(predictions_path(run, split, backend))
    results: dict[str, float] = {"test_openings": card.results.test_openings + 1} if split == "test" else {}
    if again:
        return predictions
    if judged:
        prefix = "val" if split == "validation" else "test"
        results[f"{prefix}_accuracy"] = predictions.accuracy
        if plain is not None:
            results[f"{prefix}_accuracy_one_view"] = float((plain.argmax(1) == predictions.labels).mean())
            if split == "validation":  # a server with one view is calibrated on them
                replace(predictions, logits=plain).save(run.one_view(split))
    if results:
        card.with_results(**results).save(run.card)
    return predictions


def predict_first(run: RunDir, split: str, *, device: torch.device | str = "cpu", reporter: Reporter) -> None:
    """Predict a split where there is no table of it, and making one opens nothing that was sealed.

    That is so for a model from elsewhere, and where the run card has the accuracy already, as of a model that is
    shipped without its predictions. Else the user decides when. The run must be locked by the caller.
    Raises SourceError for a model from elsewhere that was declared without images.
    """
    if run.predictions(split).exists():
        return
    card = RunCard.load(run.card)
    if card.origin:
        predict_run(run, split, device=device, reporter=reporter)
    elif known_accuracy(card, split) is not None:
        reporter.say(f"{run.path}: the {split} accuracy is known, its predictions are not here: predicting again")
        predict_run(run, split, device=device, reporter=reporter, again=True)


def known_accuracy(card: RunCard, split: str) -> float | None:
    """What the run card holds of a split; None of what has not been judged, and of the training images."""
    return {"validation": card.results.val_accuracy, "test": card.results.test_accuracy}.get(split)
