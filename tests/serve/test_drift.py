"""Whether images that come later differ from those of validation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageStat
from recorded import photographs

from fakes import random_predictions
from lucidate.serve import calibration as references
from lucidate.serve.calibration import Calibration, image_statistics, in_tenths
from lucidate.serve.drift import ENOUGH, WINDOW, Drift, population_stability


def test_statistics_are_pillows() -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for pixels, found in zip(images, image_statistics(images), strict=True):
        gray = Image.fromarray(pixels).convert("L")
        assert found[0] == pytest.approx(ImageStat.Stat(gray).mean[0], abs=0.6)
        assert found[1] == pytest.approx(ImageStat.Stat(gray).stddev[0], abs=0.6)
        values = Image.fromarray(pixels).convert("HSV")
        spread = np.asarray(values)[..., 1] / 255 * np.asarray(values)[..., 2]  # saturation × value: largest - smallest
        assert found[2] == pytest.approx(spread.mean(), abs=1.5)
        assert found[3] == pytest.approx(np.abs(np.diff(np.asarray(gray, dtype=float), axis=1)).mean(), abs=0.6)


@pytest.mark.parametrize("side", [8, 32, 50, 224])
def test_statistics_of_plain_images(side: int) -> None:
    images = np.zeros((2, side, side, 3), dtype=np.uint8)
    images[1] = (200, 100, 50)
    found = image_statistics(images)
    np.testing.assert_allclose(found[0], 0)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    np.testing.assert_allclose(found[1], [luma, 0, 150, 0], atol=1e-3)


def answers(count: int, *, seed: int = 0) -> NDArray[np.float64]:
    table = random_predictions(count, skill=3.0, seed=seed)
    return table.probabilities


def reference_for(images: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Calibration:
    return Calibration(
        num_validation=len(probabilities),
        class_share=tuple(np.bincount(probabilities.argmax(1), minlength=10) / len(probabilities)),
        confidence=in_tenths(probabilities.max(1)),
        **references.statistics_of(images, np.arange(len(images))),
    )


@pytest.fixture(scope="module")
def drift_reference() -> Calibration:
    return reference_for(photographs(2_000, seed=1), answers(2_000, seed=1))


def test_nothing_is_said_of_few_images(drift_reference: Calibration) -> None:
    drift = Drift(drift_reference)
    drift.observe(photographs(ENOUGH - 1), answers(ENOUGH - 1))
    for found in drift.report().values():
        assert found["count"] == ENOUGH - 1
        assert found["verdict"] == "not enough images yet"
        assert found["psi"] is None
    drift.observe(photographs(1), answers(1))
    assert {found["verdict"] for found in drift.report().values()} == {"stable"}


def test_images_like_those_of_validation_are_stable(drift_reference: Calibration) -> None:
    for seed in range(2, 12):
        drift = Drift(drift_reference)
        drift.observe(photographs(1_000, seed=seed), answers(1_000, seed=seed))
        report = drift.report()
        assert {found["verdict"] for found in report.values()} == {"stable"}
        for found in report.values():
            assert 0 <= found["psi"] < found["chance"]
            assert found["expected"] == pytest.approx(9 * (1 / 1_000 + 1 / 2_000))


def test_darker_images_and_another_class_are_noticed_where_they_show(drift_reference: Calibration) -> None:
    drift = Drift(drift_reference)
    probabilities = answers(600, seed=2)
    dark = photographs(600, seed=2, light=0.6)
    drift.observe(dark, probabilities)
    report = drift.report()
    assert report["brightness"]["verdict"] == "drifted"
    assert {report[name]["verdict"] for name in ("classes", "confidence")} == {"stable"}
    one_class = np.tile(probabilities[:1], (600, 1))
    drift = Drift(drift_reference)
    drift.observe(photographs(600, seed=2), one_class)
    report = drift.report()
    assert report["classes"]["verdict"] == "drifted"
    assert report["brightness"]["verdict"] == "stable"


def test_the_index_is_that_of_the_last_images_whatever_their_grouping(drift_reference: Calibration) -> None:
    images, probabilities = photographs(2_600, seed=5, light=0.9), answers(2_600, seed=5)
    ends = np.cumsum(np.random.default_rng(0).integers(1, 40, 200))
    drift = Drift(drift_reference)
    for start, end in zip([0, *ends], [*ends, 2_600], strict=True):
        drift.observe(images[start:end], probabilities[start:end])
    at_once = Drift(drift_reference)
    at_once.observe(images, probabilities)
    assert drift.report() == at_once.report()
    found = drift.report()["brightness"]
    assert found["count"] == WINDOW
    kept = drift_reference.brightness
    assert kept is not None
    values = image_statistics(images[-WINDOW:])[:, 0]
    now = np.histogram(values, [-1, *kept.edges, 256])[0]
    assert found["psi"] == pytest.approx(population_stability(np.array(kept.counts), now))


def test_the_index_is_the_stated_sum() -> None:
    before, now = np.array([50, 30, 20]), np.array([5, 0, 15])
    p, q = (np.array(counts) + 0.5 for counts in (before, now))
    p, q = p / p.sum(), q / q.sum()
    assert population_stability(before, now) == pytest.approx(sum((p - q) * np.log(p / q)))
    assert population_stability(before, before) == pytest.approx(0)


def test_without_drift_the_index_is_what_chance_makes_on_average() -> None:
    generator = np.random.default_rng(0)
    share = np.full(10, 0.1)
    found = [population_stability(*(generator.multinomial(n, share) for n in (2_500, 400))) for _ in range(2_000)]
    assert np.mean(found) == pytest.approx(9 * (1 / 2_500 + 1 / 400), rel=0.05)


def test_many_classes_do_not_drift_by_chance_alone() -> None:
    """Of 200 classes and 250 images, chance alone exceeds .25 by far."""
    generator = np.random.default_rng(0)
    drift = Drift(Calibration(num_validation=2_000, class_share=(1 / 200,) * 200))
    drift.observe(photographs(250), np.eye(200)[generator.integers(0, 200, 250)])
    found = drift.report()["classes"]
    assert found["psi"] > 0.25
    assert found["verdict"] == "stable"
    drift.observe(photographs(1_000), np.eye(200)[generator.integers(0, 20, 1_000)])
    assert drift.report()["classes"]["verdict"] == "drifted"


def test_without_a_reference_nothing_is_watched() -> None:
    drift = Drift(Calibration())
    drift.observe(photographs(300), answers(300))
    drift.observe(photographs(0), answers(1)[:0])
    assert drift.report() == {}
