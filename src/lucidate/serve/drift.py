"""Do the images that come still look like those that the model was judged on?

A window of the last 2,000 images is held against the validation images, signal by signal, by the population stability
index. Labels are not needed, so it cannot tell whether answers became wrong: only that the ground under them moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from lucidate.serve.calibration import NAMES, Calibration, Histogram, image_statistics

WINDOW = 2_000  # images; at a few a second some minutes, and enough to read .02 as what it is
ENOUGH = 200  # images; fewer say nothing: of ten bins, chance alone makes an index of .05 and, one time in twenty, .09
GROUP = 16  # images that are measured together: alone, each would cost three times as much
SMOOTHING = 0.5  # images that every bin begins with, so that an empty one is not infinitely surprising
WATCH, DRIFTED = 0.1, 0.25  # the usual marks: N. Siddiqi, Credit Risk Scorecards (2006), chapter 8
CHANCE = 0.999  # of windows without drift stay below what chance alone makes


class Drift:
    """What came lately against what was validated. For one event loop: methods must not run at the same time."""

    def __init__(self, reference: Calibration) -> None:
        # Signals without a reference have nothing to be held against, and are not watched.
        self._references = {name: found for name, found in reference.histograms.items() if sum(found.counts)}
        self._chances = {
            name: float(chi2.ppf(CHANCE, max(1, len(found.counts) - 1))) for name, found in self._references.items()
        }
        self._pending: list[tuple[NDArray[np.uint8], NDArray[np.floating]]] = []
        self._waiting = self._seen = 0  # images
        self._kept = {name: np.zeros(WINDOW, dtype=np.int32) for name in self._references}

    def observe(self, images: NDArray[np.uint8], probabilities: NDArray[np.floating]) -> None:
        """Take note of images (B, S, S, 3) and the calibrated probabilities (B, K) they were given.

        Both are kept until sixteen images are together, and must not be written to meanwhile.
        """
        if not self._references or not len(images):
            return
        self._pending.append((images[-WINDOW:], probabilities[-WINDOW:]))
        self._waiting += len(images)
        if self._waiting >= GROUP:
            self._measure()

    def report(self) -> dict[str, dict[str, Any]]:
        """By signal, in words and numbers.

        psi: population stability index, 0 or more; None while there are too few images. expected: what it is on average
        where nothing has changed. chance: what one window in a thousand exceeds then. count: images in the window, of
        2,000 at most. verdict: "stable" below .1, "watch" to .25, "drifted" above, but stable below `chance`.
        """
        self._measure()
        return {name: self._of_signal(name, found) for name, found in self._references.items()}

    def _of_signal(self, name: str, reference: Histogram) -> dict[str, Any]:
        bins = len(reference.counts)
        number = min(self._seen, WINDOW)
        noise = 1 / max(number, 1) + 1 / sum(reference.counts)
        chance = self._chances[name] * noise
        psi: float | None = None
        verdict = "not enough images yet"
        if number >= ENOUGH:
            now = np.bincount(self._kept[name][:number], minlength=bins)
            psi = population_stability(np.asarray(reference.counts), now)
            verdict = "stable" if psi < max(WATCH, chance) else "watch" if psi <= DRIFTED else "drifted"
        return {"psi": psi, "expected": (bins - 1) * noise, "chance": chance, "count": number, "verdict": verdict}

    def _measure(self) -> None:
        """Sort what is pending into bins, over the oldest in the window."""
        if not self._pending:
            return
        images, probabilities = (np.concatenate(parts)[-WINDOW:] for parts in zip(*self._pending, strict=True))
        positions = (self._seen + np.arange(len(images))) % WINDOW
        found = dict(zip(NAMES, image_statistics(images).T, strict=True))
        found["confidence"] = probabilities.max(axis=1)
        for name, kept in self._kept.items():
            reference = self._references[name]
            kept[positions] = probabilities.argmax(axis=1) if name == "classes" else reference.bins(found[name])
        self._seen += len(images)
        self._pending.clear()
        self._waiting = 0


def population_stability(reference: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Population stability index of two histograms over the same bins: the sum of (p - q) ln(p / q), 0 or more.

    Half an image is added to each bin. Where nothing changed, it is about chi-squared with bins - 1 degrees of freedom,
    times 1/n + 1/m: B. Yurdakul and J. Naranjo, Journal of Risk Model Validation 14 (2020), number 4.
    """
    before, after = ((counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts)) for counts in (reference, now))
    return float(((after - before) * np.log(after / before)).sum())
