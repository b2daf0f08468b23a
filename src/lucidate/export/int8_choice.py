"""Which int8 form of a graph? Chosen on validation images: how ranges are cut, and what stays in float."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lucidate.core.progress import Reporter, Silent
from lucidate.data.packed import read_rows
from lucidate.export.int8_graph import Floats, Layer, dynamic, static
from lucidate.models.onnx import with_outputs
from lucidate.models.onnx_session import OnnxPredictor, open_session
from lucidate.predict.infer import predict_rows

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
BINS = 2048
LEVELS = 255  # steps of 8 bits
KEPT = 0.9999  # share of values that the method "percentile" keeps
CUTS = np.linspace(0, 0.8, 33)  # shares of either end's distance from zero that the method "mse" tries to cut
SAMPLE = 500_000  # values of a tensor that a batch adds to its histogram: enough for its tails
CALIBRATED, RANKED = 512, 256  # validation images that ranges, and layers, are measured on
AT_ONCE = 2**17  # pixels of a batch while all activations are kept: 2 images of 224 pixels a side
MOST = 0.5  # of the layers may stay in float: beyond it, int8 is not worth its trouble
Maker = Callable[[str, frozenset[str]], bytes]  # how ranges are cut, nodes left in float → a graph in int8


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Validation images and what the float graph says of them.

    images: (N, S, S, 3) uint8, the whole store. rows: (M,) int64 into it. labels: (M,). exact: (M, K) float32.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    exact: NDArray[np.float32]

    @cached_property
    def accuracy(self) -> float:
        return float((self.exact.argmax(1) == self.labels).mean())

    def spread(self, count: int) -> NDArray[np.int64]:
        """Places of so many of the images, evenly spread: neighbors in a store may all be of one class."""
        return np.linspace(0, len(self.rows) - 1, min(count, len(self.rows))).astype(np.int64)


@dataclass(frozen=True)
class Trial:
    """An int8 form and how it does on validation.

    method: how ranges were cut, or "dynamic". left: nodes in float. accuracy: 0 to 1. flips: images that are given
    another class than by the float graph.
    """

    content: bytes
    method: str
    left: frozenset[str]
    accuracy: float
    flips: int


def maker_for(floats: Floats, on: CalibrationSet, *, reduce_range: bool, reporter: Reporter) -> Maker:
    """What makes int8 forms of a graph, calibrated where it has to be."""
    if floats.mode == "dynamic":
        return lambda _, left: dynamic(floats, left=left, reduce_range=reduce_range)
    chosen = on.rows[on.spread(CALIBRATED)]
    length = min(32, max(1, AT_ONCE // (on.images.shape[1] * on.images.shape[2])))
    batches = [read_rows(on.images, chosen[start : start + length]) for start in range(0, len(chosen), length)]
    histograms = observe(floats.model, floats.tensors, batches, reporter=reporter)

    def make(method: str, left: frozenset[str]) -> bytes:
        ranges = {name: span(seen, method) for name, seen in histograms.items()}  # type: ignore[arg-type]
        return static(floats, ranges, left=left, reduce_range=reduce_range)

    return make


def choose(
    floats: Floats, make: Maker, on: CalibrationSet, *, budget: float, reporter: Reporter
) -> tuple[Trial, tuple[Trial, ...]]:
    """The form to keep, and all that were tried, in order.

    budget: points of accuracy that may be lost on validation. Among forms within it, the one that changes the fewest
    predictions counts as the most faithful: accuracies of two forms hardly differ by more than chance. If none is, the
    most sensitive layers are left in float until one is; where that does not help, the one that loses least is kept.
    """
    tried: list[Trial] = []

    def trial(method: str, left: frozenset[str]) -> Trial:
        content = make(method, left)
        logits = predict_rows(OnnxPredictor(content), on.images, on.rows, reporter=reporter, task=f"trying {method}")
        predicted = logits.argmax(1)
        flips = int((predicted != on.exact.argmax(1)).sum())
        tried.append(Trial(content, method, left, float((predicted == on.labels).mean()), flips))
        return tried[-1]

    def within(one: Trial) -> bool:
        return loss(on, one) <= budget

    methods = METHODS if floats.mode == "static" else ("dynamic",)
    best = min(
        (trial(method, frozenset()) for method in methods), key=lambda one: (not within(one), one.flips, -one.accuracy)
    )
    if within(best):
        return best, tuple(tried)
    reporter.say("beyond the budget: looking for the layers that int8 hurts most")
    method, some = best.method, on.spread(RANKED)

    def answer(left: frozenset[str]) -> NDArray[np.float32]:
        return predict_rows(OnnxPredictor(make(method, left)), on.images, on.rows[some])

    for left in growing(ranked(floats.layers, answer, on.exact[some], reporter=reporter)):
        if within(trial(method, left)):
            break
    return min(tried, key=lambda one: (not within(one), max(loss(on, one), budget), one.flips)), tuple(tried)


def loss(on: CalibrationSet, one: Trial) -> float:
    """Points of accuracy that a form loses on validation; below 0 where it gains some."""
    # Both are shares of the same number of images: rounding keeps 0.3 of a point from being 0.30000000000000004.
    return round(100 * (on.accuracy - one.accuracy), 9)


def ranked(
    layers: Sequence[Layer],
    answer: Callable[[frozenset[str]], NDArray[np.float32]],
    exact: NDArray[np.float32],
    *,
    reporter: Reporter | None = None,
) -> tuple[Layer, ...]:
    """Layers by how far each one's int8 alone moves the logits, in mean squares; the one that moves them most first.

    answer: nodes to leave in float → logits (N, K) of some images. exact: what the float model says of them.
    """
    reporter = reporter or Silent()
    everything = frozenset(layer.node for layer in layers)
    moved = []
    for done, layer in enumerate(layers):
        moved.append(float(np.square(answer(everything - {layer.node}) - exact).mean()))
        reporter.advance("measuring layers", done + 1, len(layers))
    return tuple(layers[place] for place in np.argsort(-np.array(moved), kind="stable"))


def growing(ranking: Sequence[Layer]) -> Iterator[frozenset[str]]:
    """Nodes to leave in float: the most sensitive one, the two most sensitive …, in longer steps later on."""
    count = 1
    while count <= max(1, round(MOST * len(ranking))):
        yield frozenset(layer.node for layer in ranking[:count])
        count += max(1, count // 3)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Values of one activation: how many lie in each of `counts` bins of equal width from `low` to `high`."""

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def centers(self) -> NDArray[np.float64]:
        width = (self.high - self.low) / len(self.counts)
        return np.linspace(self.low + width / 2, self.high - width / 2, len(self.counts))


def observe(
    model: Any, tensors: Sequence[str], batches: Sequence[NDArray[np.uint8]], *, reporter: Reporter | None = None
) -> dict[str, Histogram]:
    """Histograms of activations of an onnx.ModelProto that takes images, over batches (B, S, S, 3) uint8."""
    reporter = reporter or Silent()
    session, feed = open_session(with_outputs(model, tensors)), model.graph.input[0].name
    lows, highs = dict.fromkeys(tensors, np.inf), dict.fromkeys(tensors, -np.inf)
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    total = 2 * len(batches)
    for step, batch in enumerate(batches):  # the ends first: bins cannot be laid out before
        for name, values in zip(tensors, session.run(tensors, {feed: batch}), strict=True):
            lows[name], highs[name] = min(lows[name], values.min()), max(highs[name], values.max())
        reporter.advance("calibrating", step + 1, total)
    for step, batch in enumerate(batches):
        for name, values in zip(tensors, session.run(tensors, {feed: batch}), strict=True):
            some = values.ravel()[:: max(1, values.size // SAMPLE)]
            scale = BINS / max(highs[name] - lows[name], 1e-12)
            places = ((some - lows[name]) * scale).astype(np.int64).clip(0, BINS - 1)
            counts[name] += np.bincount(places, minlength=BINS)
        reporter.advance("calibrating", len(batches) + step + 1, total)
    return {name: Histogram(float(lows[name]), float(highs[name]), counts[name]) for name in tensors}


def span(seen: Histogram, method: Method) -> tuple[float, float]:
    """(lowest, highest) value that 8 bits shall express; zero is always among them.

    "minmax" keeps all that was seen. "percentile" keeps 99.99 % of it, as many cut off above as below. "mse" cuts
    either end where the expected squared error of rounding and cutting together is smallest.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if method == "minmax" or low == high:
        return low, high
    if method == "percentile":
        below = seen.counts.cumsum() / max(seen.counts.sum(), 1)
        ends = seen.centers[np.searchsorted(below, [(1 - KEPT) / 2, (1 + KEPT) / 2]).clip(0, len(below) - 1)]
        return max(low, min(float(ends[0]), 0.0)), min(high, max(float(ends[1]), 0.0))
    share = seen.counts / max(seen.counts.sum(), 1)

    def cut(end: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends to try, and the squared error of what lies beyond each of them."""
        ends = end * (1 - CUTS)
        beyond = (seen.centers - ends[:, None]) * np.sign(end)
        return ends, (share * np.maximum(beyond, 0) ** 2).sum(1)

    (lows, below_error), (highs, above_error) = cut(low), cut(high)
    rounding = ((highs - lows[:, None]) / LEVELS) ** 2 / 12  # variance of values spread evenly over a step
    best = np.unravel_index((rounding + below_error[:, None] + above_error).argmin(), rounding.shape)
    return float(lows[best[0]]), float(highs[best[1]])
