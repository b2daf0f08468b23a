"""Four ways of combining, on predictions whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lucidate.analysis.studies import ensemble_gain
from lucidate.core.alignment import align
from lucidate.core.errors import PredictionsError
from lucidate.core.records import Predictions, softmax
from lucidate.studies.ensemble import combine, fit_shares

CLASSES = ("ant", "bee", "cat")


def table(probabilities: list[list[float]], labels: list[int]) -> Predictions:
    return Predictions(
        ids=np.array([f"image-{n}" for n in range(len(labels))]),
        index=np.arange(len(labels)),
        labels=np.array(labels),
        logits=np.log(np.array(probabilities)).astype(np.float32),
        class_names=CLASSES,
        dataset="toy",
        split="validation",
        model="known",
    )


# The first member is right on images 0 and 1, the second on 1 and 2, the third on none.
LABELS = [0, 1, 2]
MEMBERS = [
    table([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.5, 0.2, 0.3]], LABELS),
    table([[0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], LABELS),
    table([[0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]], LABELS),
]


def test_softmax_averaging_is_the_mean_of_probabilities() -> None:
    combined = combine(MEMBERS, method="softmax")
    expected = np.mean([member.probabilities for member in MEMBERS], axis=0)
    np.testing.assert_allclose(softmax(combined.logits(MEMBERS)), expected, atol=1e-6)
    assert combined.shares.tolist() == pytest.approx([1 / 3] * 3)


def test_logit_averaging_is_the_geometric_mean() -> None:
    combined = combine(MEMBERS, method="logits")
    expected = np.prod([member.probabilities for member in MEMBERS], axis=0) ** (1 / 3)
    np.testing.assert_allclose(softmax(combined.logits(MEMBERS)), expected / expected.sum(1, keepdims=True), atol=1e-6)


def test_fitted_shares_have_the_highest_likelihood() -> None:
    combined = combine(MEMBERS, method="weighted")
    given_ = np.stack([member.true_probability for member in MEMBERS])

    def loss(values: np.ndarray) -> float:
        shares = np.exp(values) / np.exp(values).sum()
        return -float(np.log(shares @ given_).mean())

    best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 5000})
    assert loss(np.log(np.maximum(combined.shares, 1e-12))) <= best.fun + 1e-4
    assert combined.shares[2] < 0.01  # never the most likely
    assert combined.shares.sum() == pytest.approx(1)


def test_greedy_selection_takes_who_helps_and_leaves_the_rest() -> None:
    combined = combine(MEMBERS, method="greedy")
    assert combined.shares.sum() == pytest.approx(1)
    assert combined.shares[2] == 0
    assert combined.shares[0] > 0
    assert combined.shares[1] > 0
    assert softmax(combined.logits(MEMBERS)).argmax(1).tolist() == LABELS  # together they err no more


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(2, 5))
def test_fitting_never_does_worse_than_equal_shares(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities = softmax(generator.normal(size=(count * 40, 4))).reshape(count, 40, 4)
    labels = generator.integers(0, 4, 40)
    truth = probabilities[:, np.arange(40), labels]
    fitted = fit_shares(probabilities, labels)
    assert np.log(fitted @ truth).mean() >= np.log(truth.mean(0)).mean() - 1e-12


def test_members_are_aligned_by_id_and_class_name() -> None:
    first, second = MEMBERS[0], MEMBERS[1]
    order = [2, 0, 1]
    columns = [1, 2, 0]  # bee, cat, ant
    shuffled = replace(
        second,
        ids=second.ids[order],
        index=second.index[order],
        labels=np.array([columns.index(label) for label in second.labels[order]]),
        logits=second.logits[order][:, columns],
        class_names=tuple(CLASSES[column] for column in columns),
    )
    aligned = align([first, shuffled], names=("a", "b"))[1]
    np.testing.assert_array_equal(aligned.logits, second.logits)
    np.testing.assert_array_equal(aligned.labels, second.labels)
    assert aligned.class_names == CLASSES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("ant", "bee", "dog")}, "of the same classes, received a and b, which differ in cat, dog"),
        ({"ids": np.array(["image-0", "image-1", "image-9"])}, "divided alike, received a and b, whose validation"),
        ({"labels": np.array([0, 1, 1])}, "of the same labels, received a and b"),
    ],
)
def test_members_that_do_not_belong_together_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(PredictionsError, match=message):
        align([MEMBERS[0], replace(MEMBERS[1], **change)], names=("a", "b"))


def test_the_gain_is_told_with_how_much_members_differ() -> None:
    combined = combine(MEMBERS[:2], method="softmax")
    ensemble = replace(MEMBERS[0], logits=combined.logits(MEMBERS[:2]))
    gain = ensemble_gain(ensemble, MEMBERS[:2], names=("a", "b"), shares=(0.5, 0.5), method="softmax")
    assert gain.accuracies == pytest.approx((2 / 3, 2 / 3))
    assert gain.best == "a"
    assert gain.accuracy == 1.0
    assert gain.gain == pytest.approx(1 / 3)
    assert gain.p == 1.0  # one image decides nothing
    np.testing.assert_allclose(gain.disagreement, [[0, 2 / 3], [2 / 3, 0]])
    np.testing.assert_allclose(gain.both_wrong, [[1 / 3, 0], [0, 1 / 3]])
    assert "within what chance explains" in gain.headline
    assert gain.frame()["model"].tolist() == ["a", "b", "ensemble"]
