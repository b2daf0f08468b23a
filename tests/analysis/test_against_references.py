"""Our figures against scikit-learn's and statsmodels', on random data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint

from fakes import random_predictions
from lucidate.analysis.confusion import confusion_matrix
from lucidate.analysis.per_class import classification_report, per_class_accuracy
from lucidate.analysis.statistics import wilson_interval
from lucidate.analysis.summary import summary

CASES = [(500, 10, 1.0), (40, 3, 0.0), (60, 25, 2.0), (200, 2, 5.0)]  # the third leaves classes without images


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "classes", "skill"), CASES)
def test_confusion_matrix_is_scikit_learns(count: int, classes: int, skill: float, seed: int) -> None:
    predictions = random_predictions(count, classes, seed=seed, skill=skill)
    info = confusion_matrix(predictions)
    labels = list(range(classes))
    truth, predicted = predictions.labels, predictions.predicted
    np.testing.assert_array_equal(info.counts, metrics.confusion_matrix(truth, predicted, labels=labels))
    theirs = metrics.confusion_matrix(truth, predicted, labels=labels, normalize="true")
    judged = info.counts.sum(axis=1) > 0  # scikit-learn gives zeros to a class without images, we no number
    np.testing.assert_allclose(info.normalized[judged], theirs[judged])
    assert np.isnan(info.normalized[~judged]).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "classes", "skill"), CASES)
def test_classification_report_is_scikit_learns(count: int, classes: int, skill: float, seed: int) -> None:
    predictions = random_predictions(count, classes, seed=seed, skill=skill)
    info = classification_report(predictions)
    present = np.unique(predictions.labels).tolist()
    names = [predictions.class_names[k] for k in present]
    theirs = metrics.classification_report(
        predictions.labels,
        predictions.predicted,
        labels=present,
        target_names=names,
        output_dict=True,
        zero_division=0,
    )
    frame = info.frame().set_index("class")
    pairs = [("macro avg", "macro average"), ("weighted avg", "weighted average")]
    for their_row, our_row in [*((name, name) for name in names), *pairs]:
        ours = frame.loc[our_row, ["precision", "recall", "f1", "support"]].to_numpy(dtype=float)
        row = theirs[their_row]
        np.testing.assert_allclose(ours, [row["precision"], row["recall"], row["f1-score"], row["support"]])
    assert info.accuracy == pytest.approx(metrics.accuracy_score(predictions.labels, predictions.predicted))


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_statsmodels(counts: tuple[int, int]) -> None:
    low, high = wilson_interval(*counts)
    np.testing.assert_allclose((low, high), proportion_confint(*counts, alpha=0.05, method="wilson"), atol=1e-12)
    assert 0 <= low <= counts[0] / counts[1] + 1e-12
    assert counts[0] / counts[1] - 1e-12 <= high <= 1


def test_wilson_interval_of_nothing_knows_nothing() -> None:
    assert tuple(map(float, wilson_interval(0, 0))) == (0.0, 1.0)


def test_intervals_of_classes_and_of_the_whole_are_wilsons() -> None:
    predictions = random_predictions(300, 5, skill=1.0)
    info = per_class_accuracy(predictions)
    for label in range(5):
        right = int((predictions.correct & (predictions.labels == label)).sum())
        total = int((predictions.labels == label).sum())
        expected = proportion_confint(right, total, method="wilson")
        np.testing.assert_allclose((info.low[label], info.high[label]), expected)
        assert info.accuracy[label] == pytest.approx(right / total)
    whole = summary(predictions)
    expected = proportion_confint(int(predictions.correct.sum()), 300, method="wilson")
    np.testing.assert_allclose((whole.low, whole.high), expected)
    assert whole.errors == 300 - int(predictions.correct.sum())
