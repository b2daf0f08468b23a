"""Temperature, calibration errors and the threshold for answering, against scikit-learn, torch and plain counting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torch.nn import functional

from fakes import random_predictions
from lucidate.analysis.calibration import (
    COLDEST,
    HOTTEST,
    brier_score,
    calibrate,
    ece_floor,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from lucidate.analysis.confidence import LEVELS, answer_when_sure, error_bound, fewest_images
from lucidate.core.records import softmax


def drawn(count: int, *, scale: float = 1.0, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits whose softmax at temperature `scale` is where the labels come from."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (count, 5))
    chances = softmax(logits).cumsum(1)
    labels = (generator.random((count, 1)) > chances).sum(1).clip(0, 4)
    return logits * scale, labels.astype(np.int64)


def test_the_temperature_that_labels_were_drawn_at_is_found_again() -> None:
    logits, labels = drawn(20_000, scale=1.7, seed=1)  # of twenty seeds one reads more than the floor
    found = calibrate(logits, labels)
    assert found.low < 1.7 < found.high
    assert found.high - found.low < 0.15
    assert found.ece_after < found.ece_floor < found.ece_before
    assert found.nll_after < found.nll_before
    assert found.brier_after < found.brier_before
    assert not found.limited
    assert "too sure of itself (temperature 1.7" in found.headline
    assert "no more than chance" in found.headline


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_is_that_of_torch(scale: float) -> None:
    logits, labels = drawn(700, scale=scale)
    theirs = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theirs], lr=0.5, max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)
    values, target = torch.from_numpy(logits), torch.from_numpy(labels)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(values / theirs.exp(), target)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, labels) == pytest.approx(theirs.exp().item(), rel=1e-5)


def test_the_interval_holds_the_temperature_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(100):
        found = calibrate(*drawn(150, scale=0.8, seed=seed))
        inside += found.low <= 0.8 <= found.high
    assert 88 <= inside <= 100


def test_figures_are_scikit_learns() -> None:
    predictions = random_predictions(400, 4, seed=3)
    probabilities, labels = predictions.probabilities, predictions.labels
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))
    theirs = brier_score_loss(labels, probabilities, scale_by_half=False)
    assert brier_score(probabilities, labels) == pytest.approx(theirs)


@pytest.mark.parametrize("equal_mass", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_is_that_of_scikit_learns_curve(seed: int, equal_mass: bool) -> None:
    predictions = random_predictions(600, 10, seed=seed)
    confidence, right = predictions.confidence, predictions.correct
    strategy = "quantile" if equal_mass else "uniform"
    accuracy, sure = calibration_curve(right, confidence, n_bins=15, strategy=strategy)
    edges = np.quantile(confidence, np.linspace(0, 1, 16)) if equal_mass else np.linspace(0, 1, 16)
    counts = np.histogram(confidence, edges)[0]
    theirs = (np.abs(accuracy - sure) * counts[counts > 0]).sum() / 600
    assert expected_calibration_error(confidence, right, equal_mass=equal_mass) == pytest.approx(theirs, abs=1e-3)


def test_a_confidence_of_one_belongs_to_the_last_bin_and_ties_stay_together() -> None:
    sure = np.array([1.0, 1.0, 0.95, 0.95])
    assert expected_calibration_error(sure, np.array([True] * 4)) == pytest.approx(0.025)
    confidence, right = np.full(10, 0.5), np.arange(10) < 5
    for order in (slice(None), slice(None, None, -1)):
        assert expected_calibration_error(confidence, right[order], equal_mass=True) == pytest.approx(0)


def test_the_floor_is_what_a_perfect_model_reads() -> None:
    logits, _ = drawn(500)
    confidence = softmax(logits).max(1)
    read = [
        expected_calibration_error(confidence, np.random.default_rng(seed).random(500) < confidence)
        for seed in range(300, 500)
    ]
    assert 0.88 < np.mean(np.array(read) <= ece_floor(confidence)) < 0.99


def test_a_model_that_never_errs_or_only_errs_ends_at_the_limits() -> None:
    logits = np.eye(4) * 5
    for labels, wanted in ((np.arange(4), COLDEST), ((np.arange(4) + 1) % 4, HOTTEST)):
        found = calibrate(logits, labels)
        assert found.temperature == wanted
        assert found.limited
        assert "No temperature" in found.headline


def test_minus_infinity_and_one_image_give_numbers() -> None:
    logits = np.array([[0.0, -np.inf, 1.0], [2.0, 0.0, -np.inf], [0.0, 1.0, -np.inf]], dtype=np.float32)
    for rows in (3, 1):
        found = calibrate(logits[:rows], np.array([0, 1, 1])[:rows])
        assert all(np.isfinite(value) for value in (found.temperature, found.low, found.high, found.nll_after))


def test_the_threshold_is_the_lowest_of_forty_that_keeps_the_risk() -> None:
    predictions = random_predictions(3_000, 10, skill=3.0, seed=1)
    confidence, right = predictions.confidence, predictions.correct
    found = answer_when_sure(confidence, right, risk=0.05)
    assert found.abstain == "below"
    assert found.threshold is not None
    answered = confidence >= found.threshold
    assert found.coverage == pytest.approx(answered.mean())
    assert (found.coverage * LEVELS) == pytest.approx(round(found.coverage * LEVELS), abs=0.02)
    assert found.error == pytest.approx((~right[answered]).mean())
    assert found.error < found.bound <= 0.05
    # One share more would exceed it.
    more = np.sort(confidence)[-round((found.coverage + 1 / LEVELS) * 3_000) :]
    wrong = int((~right[confidence >= more[0]]).sum())
    assert error_bound(wrong, len(more), delta=0.05 / 2 / (LEVELS - 1)) > 0.05
    assert f"Answering at {100 * found.threshold:.1f} %" in found.headline


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), st.floats(0.001, 0.3))
def test_the_bound_is_the_share_that_would_err_so_little_by_that_chance(pair: tuple[int, int], delta: float) -> None:
    wrong, number = pair
    assert binom.cdf(wrong, number, error_bound(wrong, number, delta=delta)) == pytest.approx(delta, rel=1e-6)


def test_the_risk_is_kept_as_often_as_promised() -> None:
    """A hard case: every threshold errs at the risk exactly or just above it, so each pass is a breach."""
    breaches = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        confidence = generator.random(300)
        found = answer_when_sure(confidence, generator.random(300) >= 0.1001, risk=0.1, delta=0.2)
        breaches += found.threshold is not None
    assert breaches <= 0.2 * 400
    assert breaches > 0  # else it would promise too little


def test_few_images_and_poor_models_are_told_apart() -> None:
    few = answer_when_sure(np.linspace(0.5, 1, 40), np.ones(40, dtype=bool))
    assert (few.abstain, few.threshold, few.coverage) == ("always", None, 0.0)
    assert f"takes {fewest_images(0.05)} images at least, and there are 40" in few.headline
    poor = answer_when_sure(np.linspace(0.5, 1, 4_000), np.arange(4_000) % 2 == 0)
    assert poor.threshold is None
    assert "wrong too often" in poor.headline
    enough = fewest_images(0.05)
    for number in (enough - 1, enough):
        all_right = answer_when_sure(np.linspace(0.5, 1, number), np.ones(number, dtype=bool))
        assert (all_right.abstain == "never") == (number == enough)


def test_equal_confidences_are_answered_together() -> None:
    confidence = np.repeat([0.6, 0.9], [500, 1_500])
    right = np.concatenate([np.arange(500) % 2 == 0, np.ones(1_500, dtype=bool)])
    found = answer_when_sure(confidence, right)
    assert found.threshold is not None
    assert 0.6 < found.threshold <= 0.9
    assert found.coverage == 0.75
    everything = answer_when_sure(np.full(500, 0.7), np.ones(500, dtype=bool))
    assert (everything.abstain, everything.threshold) == ("never", 0.0)
    assert "may answer everything" in everything.headline
    nothing = answer_when_sure(np.full(500, 0.7), np.arange(500) % 4 != 0)
    assert nothing.threshold is None


def test_the_headline_says_which_way_a_model_errs() -> None:
    found = calibrate(*drawn(2_000, scale=0.5))
    assert "not sure enough" in found.headline
    assert "about as sure as right" in replace(found, low=0.9, high=1.1).headline
