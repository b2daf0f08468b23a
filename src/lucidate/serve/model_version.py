"""One version of a model, ready to answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lucidate.core.run import RunDir
from lucidate.serve.engine import Engine
from lucidate.serve.errors import RequestError

if TYPE_CHECKING:
    from lucidate.serve.calibration import Calibration
    from lucidate.serve.drift import Drift
    from lucidate.serve.explainer import Explainer


@dataclass(frozen=True, eq=False)
class Answers:
    """Of n images. logits: (n, K) float32 as the model gave them. probabilities: (n, K) float64, calibrated."""

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModelVersion:
    """What routes know of a model.

    version: a whole number from 1, as text. image_size: pixels a side. fingerprint: of the files it was made from.
    weights: SHA-256 of its weights' file.
    calibration: what its validation images were like, with the temperature that calibrates it.
    drift: how those that came differ from them.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    image_size: int
    engine: Engine
    run: RunDir
    calibration: Calibration
    drift: Drift
    fingerprint: str
    weights: str

    async def answer(self, images: NDArray[np.uint8], *, timeout: float | None = None) -> Answers:
        """What the model says of images (n, S, S, 3): the one road that every route takes. Raises what `infer` does."""
        if not len(images):
            return Answers(np.empty((0, len(self.classes)), np.float32), np.empty((0, len(self.classes))))
        logits = await self.engine.infer(images, timeout=timeout)
        if not np.isfinite(logits).all():
            raise RequestError("the model's answer is no number (NaN or infinity): its weights are broken")
        probabilities = self.probabilities(logits)
        self.drift.observe(images, probabilities)
        return Answers(logits, probabilities)

    def probabilities(self, logits: NDArray[np.float32], *, calibrated: bool = True) -> NDArray[np.float64]:
        """Softmax of logits, over the temperature unless they are to be as the model gave them: (n, K)."""
        scaled = logits.astype(np.float64) / self.temperature(calibrated=calibrated)
        scaled -= scaled.max(axis=1, keepdims=True)
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum(axis=1, keepdims=True)
        return scaled

    def temperature(self, *, calibrated: bool = True) -> float:
        """What logits are divided by; 1 where they are to be as the model gave them."""
        return self.calibration.temperature if calibrated else 1.0

    @cached_property
    def explainer(self) -> Explainer:
        """Heatmaps of its answers; loads torch when it is first asked for."""
        from lucidate.serve.explainer import Explainer

        return Explainer(self.run, self.weights)


TINY = 1e-300  # stands for a probability of 0 in its logarithm, where it counts for nothing


def predictions(served: ModelVersion, answers: Answers, *, top: int, calibrated: bool = True) -> list[dict[str, Any]]:
    """One prediction an image. top: how many classes to name, at most. calibrated: else by the logits as they are.

    entropy: nats, 0 to ln K. abstain: whether calibrated confidence, whatever is shown, is below the threshold that
    keeps the risk; None where no such threshold is known. Classes that are equally likely stand in the model's order.
    """
    threshold = served.calibration.threshold
    probabilities, sure = answers.probabilities, None
    if not calibrated:
        sure = probabilities.max(axis=1).tolist()
        probabilities = served.probabilities(answers.logits, calibrated=False)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top].tolist()
    entropies = -(probabilities * np.log(np.maximum(probabilities, TINY))).sum(axis=1)
    found = []
    rows = zip(probabilities.tolist(), entropies.tolist(), order, strict=True)
    for index, (row, entropy, best) in enumerate(rows):
        confidence = row[best[0]] if sure is None else sure[index]
        classes = [{"label": served.classes[k], "index": k, "probability": row[k]} for k in best]
        abstain = None if threshold is None else confidence < threshold
        found.append({"classes": classes, "entropy": max(0.0, entropy), "abstain": abstain})
    return found
