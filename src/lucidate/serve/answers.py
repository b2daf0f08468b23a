"""Calibrated probabilities → what a person reads: classes, the likeliest first, and whether to believe them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucidate.serve.served import Served

TINY = 1e-300  # stands for a probability of 0 in its logarithm, where it counts for nothing


def predictions(served: Served, probabilities: NDArray[np.float64], *, top: int) -> list[dict[str, Any]]:
    """One prediction an image. probabilities: (n, K), calibrated. top: how many classes to name, at most.

    entropy: nats, 0 to ln K. abstain: whether confidence is below the threshold that keeps the risk; None where no such
    threshold is known. Classes that are equally likely stand in the model's own order.
    """
    threshold = served.reference.threshold
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top].tolist()
    entropies = -(probabilities * np.log(np.maximum(probabilities, TINY))).sum(axis=1)
    found = []
    for row, entropy, best in zip(probabilities.tolist(), entropies.tolist(), order, strict=True):
        classes = [{"label": served.classes[k], "index": k, "probability": row[k]} for k in best]
        abstain = None if threshold is None else row[best[0]] < threshold
        found.append({"classes": classes, "entropy": max(0.0, entropy), "abstain": abstain})
    return found
