"""What a figure is to be held against: the largest class, the other levels, the other classes' numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_absent import answers

from lucidate.analysis.dataset import class_distribution
from lucidate.analysis.findings import analyze
from lucidate.analysis.studies import Level, LevelsTable
from lucidate.analysis.summary import summary

CONSTANT = [(0, 0)] * 95 + [(1, 0)] * 5  # always the most frequent class


def test_a_model_that_names_one_class_is_no_better_than_that(tmp_path: Path) -> None:
    predictions = answers(CONSTANT)
    info = summary(predictions)
    assert (info.majority_class, info.majority_accuracy) == ("cat", 0.95)
    assert not info.beats_majority
    assert info.headline.endswith(
        " No better than always answering cat, the most frequent class, which is right for 95.0 %."
    )
    assert not info.frame()["beats_majority"].item()
    analyze(predictions).save(tmp_path)
    kept = json.loads((tmp_path / "summary.json").read_text())
    assert (kept["majority_class"], kept["majority_accuracy"]) == ("cat", 0.95)


def test_a_little_better_is_told_from_clearly_better() -> None:
    little = summary(answers([(0, 0)] * 95 + [(1, 0)] * 4 + [(1, 1)]))
    assert "By no more than chance better than always answering cat" in little.headline
    clear = summary(answers([(0, 0)] * 50 + [(1, 1)] * 48 + [(1, 0)] * 2))
    assert clear.beats_majority
    assert "always answering" not in clear.headline
    assert clear.majority_accuracy == 0.5


def level(number: int, accuracy: float, *, half: float = 0.006) -> Level:
    return Level(
        level=number,
        title=f"step {number}",
        run=f"level-{number}",
        model="compact",
        origin="from scratch",
        parameters=1,
        val_images=100,
        val_accuracy=accuracy,
        val_low=accuracy - half,
        val_high=accuracy + half,
        test_images=100,
        test_accuracy=accuracy,
        test_low=accuracy - half,
        test_high=accuracy + half,
        change=None,
        p=None,
        seconds=1.0,
        images_per_second=1.0,
    )


def said(table: LevelsTable) -> str:
    return table.headline.replace("\N{NO-BREAK SPACE}", " ").partition("; ")[2]


def test_levels_that_tie_have_no_best() -> None:
    table = LevelsTable((level(1, 0.98), level(2, 0.97), level(3, 0.98)))
    assert said(table) == "levels 1 and 3 tie at 98.0 %, so none is the best."


@pytest.mark.parametrize("p", [0.4, None])
def test_the_highest_is_not_the_best_where_chance_explains_it(p: float | None) -> None:
    table = LevelsTable((level(1, 0.979), level(2, 0.981)), best_p=p)
    told = " (p = 0.400)" if p else ""
    assert said(table) == f"level 2 is the highest, 98.1 %, but not better than level 1 beyond chance{told}."


def test_the_best_is_called_the_best_where_a_test_says_so() -> None:
    assert said(LevelsTable((level(1, 0.979), level(2, 0.981)), best_p=0.01)) == "level 2 is the best, 98.1 %."
    assert said(LevelsTable((level(1, 0.9), level(2, 0.98)))) == "level 2 is the best, 98.0 %."
    assert LevelsTable((level(1, 0.9),)).headline.replace("\N{NO-BREAK SPACE}", " ") == "Level 1: 90.0 %."


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((20, 18), "cat has the most (20, 52.6 %), 1.1 times as many as dog, which has the fewest (18)."),
        ((20, 0), "cat has the most (20, 100.0 %) and dog has none."),
    ],
)
def test_how_uneven_classes_are_is_said_in_times(sizes: tuple[int, int], words: str) -> None:
    info = class_distribution({"all": np.repeat([0, 1], sizes)}, ("cat", "dog"))
    assert words in info.headline
    assert " to 1" not in info.headline
