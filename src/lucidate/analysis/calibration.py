"""Can the model's probabilities be taken at their word, and which temperature makes it so?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import rankdata

from lucidate.analysis.formatting import count
from lucidate.core.records import softmax

# Temperatures: a model that is never wrong would ask for 0, one that guesses for infinity.
COLDEST, HOTTEST = 0.05, 20.0
BINS = 15  # as Guo et al. and nearly everybody since, so that figures compare
FOLDS = 5
FARTHEST = 1_000.0  # nats below a row's best: a probability of 0 at any temperature, without the infinity of its log


@dataclass(frozen=True)
class Calibration:
    """A temperature fitted on some images, and what it does to the probabilities of these.

    temperature: divide logits by it. Above 1 the model was too sure, below 1 not sure enough. low, high: 95 % interval
    (sandwich). nll: mean negative log-likelihood in nats. ece: expected calibration error, 15 equal-width bins, share
    of 1. brier: mean squared distance to the one-hot label, 0 to 2. Less is better in each. *_after: cross-fitted, each
    fifth with the temperature of the other four, so no image judges a temperature that it helped to choose.
    ece_floor: 95th percentile of the ECE that a perfectly calibrated model of these confidences would read on as many
    images; a figure below it shows no error. limited: the temperature is an end of what is searched, 0.05 to 20.
    """

    temperature: float
    low: float
    high: float
    num_images: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    brier_before: float
    brier_after: float
    ece_floor: float
    limited: bool

    @property
    def headline(self) -> str:
        if self.limited:
            return f"No temperature from {COLDEST} to {HOTTEST:.0f} fits best: too few images, or none wrong, or all."
        way = "too sure of itself" if self.low > 1 else "not sure enough" if self.high < 1 else "about as sure as right"
        floor = "" if self.ece_after > self.ece_floor else ", no more than chance leaves on so few"
        return (
            f"The model is {way} (temperature {self.temperature:.2f}); on {count(self.num_images, 'image')} the "
            f"calibration error goes from {100 * self.ece_before:.1f} to {100 * self.ece_after:.1f} points{floor}."
        )


def calibrate(logits: NDArray[np.floating], labels: NDArray[np.int64], *, seed: int = 0) -> Calibration:
    """Fit a temperature, and measure what it brings. logits: (N, K); labels: (N,) in [0, K). N at least 1.

    Use images that the model was neither trained nor, if it can be helped, chosen on: a model chosen by its accuracy on
    the same validation images looks a little more sure on them than it is. Source: C. Guo et al., arXiv:1706.04599.
    """
    temperature = fit_temperature(logits, labels)
    low, high = temperature_interval(logits, labels, temperature=temperature)
    fold = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    fitted = np.full(len(labels), temperature)
    if len(labels) >= 2 * FOLDS:
        for number in range(FOLDS):
            fitted[fold == number] = fit_temperature(logits[fold != number], labels[fold != number])
    before, after = (softmax(bounded(logits) / scale) for scale in (1.0, fitted[:, None]))
    right = before.argmax(1) == labels
    return Calibration(
        temperature=temperature,
        low=low,
        high=high,
        num_images=len(labels),
        nll_before=negative_log_likelihood(before, labels),
        nll_after=negative_log_likelihood(after, labels),
        ece_before=expected_calibration_error(before.max(1), right),
        ece_after=expected_calibration_error(after.max(1), right),
        brier_before=brier_score(before, labels),
        brier_after=brier_score(after, labels),
        ece_floor=ece_floor(after.max(1), seed=seed),
        limited=temperature in (COLDEST, HOTTEST),
    )


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The temperature in [0.05, 20] of the least negative log-likelihood: exact, and the only one.

    The likelihood is concave in 1 / temperature, so its slope has one root or none.
    """
    values = bounded(logits)

    def slope(inverse: float) -> float:
        expected = (softmax(values * inverse) * values).sum(1)
        return float((expected - values[np.arange(len(labels)), labels]).mean())

    if slope(1 / COLDEST) <= 0:  # still gaining at the coldest
        return COLDEST
    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    return float(1 / brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-10))


def temperature_interval(
    logits: NDArray[np.floating], labels: NDArray[np.int64], *, temperature: float
) -> tuple[float, float]:
    """95 % interval of a fitted temperature, by the sandwich estimate of the variance of 1 / temperature.

    It does not suppose that the model is right about its errors. Source: H. White, Econometrica 50 (1982), p. 1.
    """
    values = bounded(logits)
    probabilities = softmax(values / temperature)
    expected = (probabilities * values).sum(1)
    score = expected - values[np.arange(len(labels)), labels]
    curvature = float(((probabilities * values**2).sum(1) - expected**2).sum())
    if curvature <= 0:
        return COLDEST, HOTTEST
    half = 1.96 * float((score**2).sum()) ** 0.5 / curvature
    low, high = 1 / (1 / temperature + half), 1 / max(1 / temperature - half, 1 / HOTTEST)
    return max(low, COLDEST), min(high, HOTTEST)


def negative_log_likelihood(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean over images, in nats. A probability of 0 counts as the smallest number."""
    given = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(given, np.finfo(np.float64).tiny)).mean())


def brier_score(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean squared distance of (N, K) probabilities to the one-hot labels, 0 to 2. G. W. Brier, MWR 78 (1950), p. 1."""
    given = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities**2).sum(1) - 2 * given + 1).mean())


def expected_calibration_error(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = BINS, equal_mass: bool = False
) -> float:
    """Mean distance of confidence and accuracy over bins, weighed by their images; 0 to 1, less is better.

    confidence, right: (N,). Bins are equally wide over [0, 1] (M. P. Naeini et al., AAAI 2015), 1.0 in the last one; or
    equal_mass: of as many images each (K. Nguyen and B. O'Connor, EMNLP 2015), equal confidences in one bin.
    """
    position = (rankdata(confidence) - 0.5) / len(confidence) if equal_mass else confidence
    bin_of = np.minimum(position * bins, bins - 1).astype(np.int64)
    gap = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def ece_floor(confidence: NDArray[np.float64], *, draws: int = 200, seed: int = 0) -> float:
    """95th percentile of the error that is read where there is none: labels drawn as the confidences promise."""
    generator, count = np.random.default_rng(seed), len(confidence)
    read = [expected_calibration_error(confidence, generator.random(count) < confidence) for _ in range(draws)]
    return float(np.quantile(read, 0.95))


def bounded(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logits (N, K) in float64, the best of each row 0, others at least -1,000: minus infinity is legal in a table."""
    values = logits.astype(np.float64)
    return np.maximum(values - values.max(1, keepdims=True), -FARTHEST)
