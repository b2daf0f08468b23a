"""Probabilities → what a person reads: classes, the likeliest first, and whether to believe them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lucidate.serve.model_version import Answers, ModelVersion

TINY = 1e-300  # stands for a probability of 0 in its logarithm, where it counts for nothing


def predictions(served: ModelVersion, answers: Answers, *, top: int, calibrated: bool = True) -> list[dict[str, Any]]:
    """One prediction an image. top: how many classes to name, at most. calibrated: else by the logits as they are.

    entropy: nats, 0 to ln K. abstain: whether calibrated confidence, whatever is shown, is below the threshold that
    keeps the risk; None where no such threshold is known. Classes that are equally likely stand in the model's order.
    """
    threshold = served.reference.threshold
    probabilities, sure = answers.probabilities, None
    if not calibrated:
        sure = probabilities.max(axis=1).tolist()
        probabilities = served.probabilities(answers.logits, calibrated=False)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top].tolist()
    entropies = -(probabilities * np.log(np.maximum(probabilities, TINY))).sum(axis=1)
    found = []
    rows = zip(probabilities.tolist(), entropies.tolist(), order, strict=True)
    for place, (row, entropy, best) in enumerate(rows):
        confidence = row[best[0]] if sure is None else sure[place]
        classes = [{"label": served.classes[k], "index": k, "probability": row[k]} for k in best]
        abstain = None if threshold is None else confidence < threshold
        found.append({"classes": classes, "entropy": max(0.0, entropy), "abstain": abstain})
    return found
