"""Which layers must stay in float for an int8 model to stay within its budget?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lucidate.core.progress import Reporter, Silent
from lucidate.export.int8_graph import Layer

MOST = 0.5  # of the layers may stay in float: beyond it, int8 is not worth its trouble


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
