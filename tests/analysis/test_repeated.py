"""Differences over seeds and over images, against SciPy's tests and by enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from lucidate.analysis.statistics import Mean, mcnemar, mean_over_images, mean_over_seeds, sign_flip_p, wilson_interval
from lucidate.analysis.studies import Distillation, variant


def test_over_seeds_it_is_the_paired_t_test() -> None:
    before, after = [0.71, 0.72, 0.70, 0.69], [0.75, 0.745, 0.741, 0.70]
    found, theirs = mean_over_seeds(np.subtract(after, before).tolist()), ttest_rel(after, before)
    interval = theirs.confidence_interval(0.95)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


@pytest.mark.parametrize("values", [[0.5], [0.1, 0.1], [0.0, 0.0, 0.0], [0.3, 0.1 + 0.2]])
def test_values_without_spread_say_nothing_of_other_seeds(values: list[float]) -> None:
    assert mean_over_seeds(values) == Mean(pytest.approx(values[0]), None, None, None)


def test_with_one_seed_the_sign_test_over_images_is_mcnemars() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random((1, 400)) < 0.8, generator.random((1, 400)) < 0.85
    found = mean_over_images(first, second)
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    assert found.p == pytest.approx(mcnemar(lost, won))
    assert found.mean == pytest.approx((won - lost) / 400)
    error = (second.astype(float) - first).std() / 20
    assert (found.low, found.high) == (
        pytest.approx(found.mean - 1.96 * error, abs=0.1 * error),
        pytest.approx(found.mean + 1.96 * error, abs=0.1 * error),
    )


@pytest.mark.parametrize("sums", [[2, -1, 1, 3, 0, -2, 3, 1], [0, 0], [3, 3, 3], [-1, 2, -3]])
def test_the_sign_test_counts_every_way_to_flip(sums: list[int]) -> None:
    totals = [abs(sum(sign * each for sign, each in zip(signs, sums, strict=True))) for signs in _signs(len(sums))]
    assert sign_flip_p(np.array(sums)) == pytest.approx(np.mean([total >= abs(sum(sums)) for total in totals]))


def _signs(count: int) -> list[tuple[int, ...]]:
    return list(product((1, -1), repeat=count))


def test_images_that_all_seeds_agree_on_count_once() -> None:
    """Three copies of one pair of models know no more than the pair."""
    generator = np.random.default_rng(1)
    first, second = generator.random((1, 300)) < 0.7, generator.random((1, 300)) < 0.8
    once, thrice = (mean_over_images(np.repeat(first, n, 0), np.repeat(second, n, 0)) for n in (1, 3))
    assert thrice.p == pytest.approx(once.p)
    assert thrice.low == pytest.approx(once.low, abs=0.004)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a value a seed"):
        mean_over_seeds([])
    with pytest.raises(ValueError, match=r"expected two arrays \(S, N\)"):
        mean_over_images(np.ones((2, 3), bool), np.ones((2, 4), bool))


def a_table(alone: tuple[float, ...], taught: tuple[float, ...]) -> Distillation:
    differences = [b - a for a, b in zip(alone, taught, strict=True)]
    rows = [
        variant(name, model="fastnet", accuracies=values, images=1000, parameters=7)
        for name, values in (("teacher", (0.9,)), ("student alone", alone), ("student distilled", taught))
    ]
    images = Mean(float(np.mean(differences)), 0.01, 0.05, 0.002)
    return Distillation(tuple(rows), tuple(range(len(alone))), mean_over_seeds(differences), images, 1000)


def test_a_row_has_the_interval_that_it_can_have() -> None:
    table = a_table((0.70, 0.72), (0.74, 0.75))
    teacher, alone = table.rows[:2]
    low, high = wilson_interval(900, 1000)
    assert (teacher.std, teacher.low, teacher.high) == (None, pytest.approx(float(low)), pytest.approx(float(high)))
    assert alone.std == pytest.approx(0.02 / 2**0.5)
    assert alone.high == pytest.approx(0.71 + t.ppf(0.975, 1) * 0.01)
    assert table.frame().shape == (3, 10)


def test_the_headline_says_what_is_known() -> None:
    table = a_table((0.70, 0.72, 0.71), (0.74, 0.75, 0.745))
    assert table.headline.startswith("Taught, the student reaches 74.50 % test accuracy; alone 71.00 %: +3.5 points (")
    assert "over 3 seeds 95 % CI +2.3 to +4.7 points, p = 0.007" in table.headline
    assert table.p == pytest.approx(table.by_seeds.p)
    one = a_table((0.70,), (0.74,))
    assert "seeds" not in one.headline
    assert one.p == 0.002
    assert len(one.arrows()) == 1


def test_arrows_point_to_the_taught_student() -> None:
    up, down, same = a_table((0.70, 0.80, 0.75), (0.80, 0.70, 0.75)).arrows()
    assert up.startswith("seed 0    ○───")
    assert "▶" in up
    assert "◀" in down
    assert "70.00 → 80.00 %  +10.0 points" in up
    assert "─" not in same
