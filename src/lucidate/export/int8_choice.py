"""Which int8 form of a graph? Chosen on validation images: how ranges are cut, and which layers stay in float."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lucidate.core.progress import Reporter, Silent
from lucidate.data.packed import read_rows
from lucidate.export.int8_graph import Floats, Layer, dynamic, static
from lucidate.export.int8_ranges import METHODS, Histogram, observe, span
from lucidate.models.onnx_session import OnnxPredictor
from lucidate.predict.loop import predict_rows

CALIBRATED, RANKED = 512, 256  # validation images that ranges, and layers, are measured on
AT_ONCE = 2**17  # pixels of a batch while all activations are kept: 2 images of 224 pixels a side
MOST = 0.5  # of the layers may stay in float: beyond it, int8 is not worth its trouble


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


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes int8 forms of one graph. histograms: of its activations; empty for dynamic ones."""

    floats: Floats
    histograms: dict[str, Histogram]
    reduce_range: bool

    @property
    def methods(self) -> tuple[str, ...]:
        return METHODS if self.floats.mode == "static" else ("dynamic",)

    def __call__(self, method: str, left: frozenset[str]) -> bytes:
        if method == "dynamic":
            return dynamic(self.floats, left=left, reduce_range=self.reduce_range)
        ranges = {name: span(seen, method) for name, seen in self.histograms.items()}  # type: ignore[arg-type]
        return static(self.floats, ranges, left=left, reduce_range=self.reduce_range)


def maker_for(floats: Floats, on: CalibrationSet, *, reduce_range: bool, reporter: Reporter) -> Maker:
    """The maker of a graph, calibrated."""
    if floats.mode == "dynamic":
        return Maker(floats, {}, reduce_range)
    chosen = on.rows[on.spread(CALIBRATED)]
    length = min(32, max(1, AT_ONCE // (on.images.shape[1] * on.images.shape[2])))
    batches = [read_rows(on.images, chosen[start : start + length]) for start in range(0, len(chosen), length)]
    return Maker(floats, observe(floats.model, floats.tensors, batches, reporter=reporter), reduce_range)


def choose(maker: Maker, on: CalibrationSet, *, budget: float, reporter: Reporter) -> tuple[Trial, tuple[Trial, ...]]:
    """The form to keep, and all that were tried, in order.

    budget: points of accuracy that may be lost on validation. Among forms within it, the one that changes the fewest
    predictions counts as the most faithful: accuracies of two forms hardly differ by more than chance. If none is, the
    most sensitive layers are left in float until one is; where that does not help, the one that loses least is kept.
    """
    tried: list[Trial] = []

    def trial(method: str, left: frozenset[str]) -> Trial:
        content = maker(method, left)
        graph = OnnxPredictor(content)
        logits = predict_rows(graph, on.images, on.rows, reporter=reporter, task=f"trying {method}")
        predicted = logits.argmax(1)
        flips = int((predicted != on.exact.argmax(1)).sum())
        tried.append(Trial(content, method, left, float((predicted == on.labels).mean()), flips))
        return tried[-1]

    def within(one: Trial) -> bool:
        return loss(on, one) <= budget

    forms = [trial(method, frozenset()) for method in maker.methods]
    best = min(forms, key=lambda one: (not within(one), one.flips, -one.accuracy))
    if not within(best):
        for left in _left(maker, on, best.method, reporter):
            if within(trial(best.method, left)):
                break
        best = min(tried, key=lambda one: (not within(one), max(loss(on, one), budget), one.flips))
    return best, tuple(tried)


def loss(on: CalibrationSet, one: Trial) -> float:
    """Points of accuracy that a form loses on validation; below 0 where it gains some."""
    # Both are shares of the same number of images: rounding keeps 0.3 of a point from being 0.30000000000000004.
    return round(100 * (on.accuracy - one.accuracy), 9)


def _left(maker: Maker, on: CalibrationSet, method: str, reporter: Reporter) -> Iterator[frozenset[str]]:
    """Nodes to leave in float, more and more of them, the most sensitive ones first."""
    some = on.spread(RANKED)
    reporter.say("beyond the budget: looking for the layers that int8 hurts most")

    def answer(left: frozenset[str]) -> NDArray[np.float32]:
        return predict_rows(OnnxPredictor(maker(method, left)), on.images, on.rows[some])

    yield from growing(ranked(maker.floats.layers, answer, on.exact[some], reporter=reporter))


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
