"""Two tables compared: counted by hand, and against independent implementations."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.proportion import proportion_confint

from fakes import random_predictions
from lucidate.analysis.comparison import compare
from lucidate.analysis.formatting import p_value, points, points_interval
from lucidate.analysis.statistics import mcnemar, paired_interval
from lucidate.core.errors import PredictionsError
from lucidate.core.records import Predictions, jsonable

NAMES = ("cat", "dog", "frog")


def table(rows: list[tuple[str, int, list[float]]], names: tuple[str, ...] = NAMES, model: str = "one") -> Predictions:
    """A table from (id, label, probabilities)."""
    return Predictions(
        ids=np.array([row[0] for row in rows]),
        index=np.arange(len(rows)),
        labels=np.array([row[1] for row in rows]),
        logits=np.log(np.array([row[2] for row in rows])).astype(np.float32),
        class_names=names,
        dataset="tiny",
        split="test",
        model=model,
    )


FIRST = table(
    [
        ("a", 0, [0.8, 0.1, 0.1]),  # right in both
        ("b", 0, [0.3, 0.6, 0.1]),  # fixed, by 0.4
        ("c", 1, [0.9, 0.05, 0.05]),  # fixed, by 0.85
        ("d", 1, [0.2, 0.7, 0.1]),  # broken
        ("e", 2, [0.6, 0.3, 0.1]),  # wrong in both, differently
        ("f", 2, [0.6, 0.3, 0.1]),  # wrong in both, alike
        ("only in one", 2, [0.6, 0.3, 0.1]),
    ]
)
SECOND = table(
    [
        ("f", 2, [0.7, 0.2, 0.1]),
        ("e", 2, [0.3, 0.6, 0.1]),
        ("d", 1, [0.5, 0.4, 0.1]),
        ("c", 1, [0.05, 0.9, 0.05]),
        ("b", 0, [0.7, 0.2, 0.1]),
        ("a", 0, [0.8, 0.1, 0.1]),
    ],
    model="other",
)


def reordered(predictions: Predictions, order: list[int]) -> Predictions:
    """The same answers, classes in another order."""
    return replace(
        predictions,
        labels=np.argsort(order)[predictions.labels],
        logits=predictions.logits[:, order],
        class_names=tuple(predictions.class_names[k] for k in order),
    )


def test_images_are_joined_by_id_and_counted() -> None:
    found = compare(FIRST, SECOND)
    assert (found.images, found.left_out) == (6, (1, 0))
    assert found.fixed.first.ids.tolist() == ["c", "b"]  # the largest change of the true class first
    assert found.broken.first.ids.tolist() == ["d"]
    assert found.fixed.change.tolist() == pytest.approx([0.85, 0.4], abs=1e-6)
    assert (found.both_right, found.both_wrong, found.changed_wrong) == (1, 2, 1)
    assert (found.first.accuracy, found.second.accuracy) == (2 / 6, 3 / 6)
    assert found.difference == pytest.approx(1 / 6)
    assert found.low < found.difference < found.high
    assert found.mcnemar_p == 1.0
    assert found.names == ("one", "other")
    assert "other differs from one by no more than chance can: 50.0 % against 33.3 % of 6 test images" in found.headline
    assert "It fixes 2 images and breaks 1." in found.headline


def test_a_flipped_image_tells_both_answers() -> None:
    row = compare(FIRST, SECOND).fixed.frame().iloc[0]
    assert row[["id", "true_class", "answer_a", "answer_b"]].tolist() == ["c", "dog", "cat", "dog"]
    values = row[["confidence_a", "confidence_b", "true_class_probability_a", "change"]].tolist()
    assert values == pytest.approx([0.9, 0.9, 0.05, 0.85], abs=1e-6)


def test_classes_are_listed_by_the_size_of_their_change() -> None:
    classes = compare(FIRST, SECOND).classes
    assert classes.change.tolist() == [0.5, 0, 0]  # cat +1 of 2, dog +1 −1, frog none
    assert classes.frame()["class"].tolist() == ["cat", "dog", "frog"]
    assert classes.frame()[["fixed", "broken", "images"]].to_numpy().tolist() == [[1, 0, 2], [1, 1, 2], [0, 0, 2]]
    assert "cat gains most, +50.0 points" in classes.headline
    assert "no class loses" in classes.headline
    back = compare(SECOND, FIRST).classes
    assert back.change.tolist() == [-0.5, 0, 0]
    assert back.headline.startswith("cat loses most, −50.0 points")
    alike = compare(FIRST, replace(FIRST, model="other")).classes
    assert alike.headline == "Every class is as accurate with one as with the other."


def test_a_class_without_images_comes_last_and_has_no_share() -> None:
    two = table([("a", 0, [0.8, 0.1, 0.1]), ("b", 2, [0.8, 0.1, 0.1])])
    classes = compare(two, replace(two, logits=two.logits[:, ::-1])).classes
    assert np.isnan(classes.change[1])
    assert classes.frame()["class"].tolist() == ["cat", "frog", "dog"]
    assert np.isnan([classes.low[1], classes.high[1]]).all()
    assert not classes.clear[1]


def test_the_order_of_classes_does_not_matter() -> None:
    first, second = random_predictions(400, seed=1, skill=1.0), random_predictions(400, seed=1, skill=2.0)
    order = np.random.default_rng(5).permutation(10).tolist()
    ours, theirs = compare(first, second), compare(first, reordered(second, order))
    assert theirs.headline == ours.headline
    for part in ("classes", "fixed", "broken"):
        pd.testing.assert_frame_equal(getattr(theirs, part).frame(), getattr(ours, part).frame())


def test_a_tie_is_answered_as_the_table_itself_answers_it() -> None:
    tied = reordered(table([("a", 0, [0.4, 0.4, 0.2])], model="tied"), [1, 0, 2])
    assert tied.class_names[tied.predicted[0]] == "dog"
    found = compare(table([("a", 0, [0.8, 0.1, 0.1])]), tied)
    assert found.second.accuracy == tied.accuracy == 0


def test_the_order_of_rows_does_not_matter() -> None:
    first, second = random_predictions(400, seed=1, skill=1.0), random_predictions(400, seed=1, skill=2.0)
    rows = np.random.default_rng(5).permutation(400)
    columns = {name: getattr(second, name)[rows] for name in ("ids", "index", "labels", "logits")}
    assert compare(first, replace(second, **columns)).headline == compare(first, second).headline


def test_accuracies_and_intervals_of_the_whole() -> None:
    first, second = random_predictions(500, seed=3, skill=1.0), random_predictions(500, seed=3, skill=3.0)
    found = compare(first, second, names=("weak", "strong"))
    assert found.first.accuracy == first.accuracy
    assert found.second.accuracy == second.accuracy
    theirs = proportion_confint(int(second.correct.sum()), 500, method="wilson")
    np.testing.assert_allclose((found.second.low, found.second.high), theirs)
    agreement = np.array([[found.both_right, len(found.broken)], [len(found.fixed), found.both_wrong]])
    assert agreement.sum() == 500
    assert found.mcnemar_p == pytest.approx(contingency_tables.mcnemar(agreement, exact=True).pvalue)
    assert found.headline.startswith("strong is better than weak: ")
    assert compare(second, first, names=("strong", "weak")).headline.startswith("weak is worse than strong: ")
    row = found.frame().iloc[0]
    assert row["only_b_right"] == len(found.fixed)
    assert row["difference"] == pytest.approx(second.accuracy - first.accuracy)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_statsmodels(only_first: int, only_second: int) -> None:
    ours = mcnemar(only_first, only_second)
    agreement = np.array([[7, only_first], [only_second, 5]])
    if only_first + only_second:
        theirs = contingency_tables.mcnemar(agreement, exact=True).pvalue
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-300)
    assert 0 <= ours <= 1
    assert ours == pytest.approx(mcnemar(only_second, only_first), rel=1e-9, abs=1e-300)


def test_mcnemar_without_flips_and_with_nonsense() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 1) == 1.0
    with pytest.raises(ValueError, match="expected counts of images, 0 or more, received -1 and 2"):
        mcnemar(-1, 2)


def test_the_interval_of_a_paired_difference_is_bonett_and_prices() -> None:
    # The documented example of ci.prop.ps in the R package statpsych, by D. G. Bonett: f00=12, f01=4, f10=26, f11=6.
    low, high = paired_interval(4, 26, 48)
    assert (float(low), float(high)) == pytest.approx((0.2548067, 0.6251933), abs=1e-7)
    low, high = paired_interval([0, 0], [0, 0], [0, 10])
    assert (low[0], high[0]) == (-1, 1)
    assert low[1] == -high[1] < 0  # no flips among ten images: not a proof that there are none


def test_of_many_images_it_is_the_interval_of_the_mean_of_differences() -> None:
    differences = np.repeat([-1, 1, 0], [600, 800, 20_000])
    theirs = stats.ttest_1samp(differences, 0).confidence_interval()
    low, high = paired_interval(600, 800, len(differences))
    np.testing.assert_allclose((low, high), (theirs.low, theirs.high), atol=2e-5)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_the_interval_holds_the_difference(only_first: int, only_second: int, rest: int) -> None:
    total = only_first + only_second + rest
    low, high = paired_interval(only_first, only_second, total)
    if total:
        assert -1 <= low <= (only_second - only_first) / total + 1e-12
        assert (only_second - only_first) / total - 1e-12 <= high <= 1


def test_what_cannot_be_compared_is_refused_in_one_line() -> None:
    other = replace(SECOND, class_names=("cat", "dog", "horse"))
    with pytest.raises(PredictionsError, match=r"received 'frog' only in one and 'horse' only in other") as caught:
        compare(FIRST, other)
    assert "\n" not in str(caught.value)
    strangers = replace(SECOND, ids=np.array([f"train/{row}" for row in range(6)]))
    with pytest.raises(PredictionsError, match="ids: expected images in common, received none") as caught:
        compare(FIRST, strangers)
    assert "one answers 'a' and others, other 'train/0'" in str(caught.value)
    with pytest.raises(PredictionsError, match=r"labels: .* received 'cat' in one and 'dog' in other for 'a' \(1 in"):
        compare(FIRST, replace(SECOND, labels=np.array([2, 2, 1, 1, 0, 1])))


def test_a_table_against_itself() -> None:
    found = compare(FIRST, FIRST)
    assert found.names == ("one (A)", "one (B)")
    assert (len(found.fixed), len(found.broken), found.difference, found.mcnemar_p) == (0, 0, 0, 1)
    assert found.headline == "one (A) and one (B) are right on the same images: 28.6 % of 7 test images."
    assert found.fixed.headline == "No image is wrong in one (A) and right in one (B)."
    assert len(found.fixed.frame()) == 0


def test_records_are_frozen_and_become_json() -> None:
    found = compare(FIRST, SECOND)
    for record in (found, found.first, found.classes, found.fixed):
        with pytest.raises(FrozenInstanceError):
            record.names = None  # type: ignore[misc]
    json.dumps(jsonable(found), allow_nan=False)


def test_words_for_differences() -> None:
    assert [points(value) for value in (0.012, -0.012, 0.0, -0.0004)] == [
        "+1.2 points",
        "−1.2 points",
        "0.0 points",
        "0.0 points",
    ]
    assert points_interval(-0.002, 0.018) == "95 % CI −0.2 to +1.8 points"
    assert [p_value(p) for p in (1, 0.0312, 0.00042, 1e-9)] == ["p = 1.000", "p = 0.031", "p = 0.0004", "p < 0.0001"]
