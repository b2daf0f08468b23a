"""A class without a test image has no accuracy: not 0, not 100 %; it is named, and no mean counts it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lucidate.analysis.confusion import confusion_matrix
from lucidate.analysis.dataset import class_distribution
from lucidate.analysis.findings import analyze
from lucidate.analysis.formatting import without_images
from lucidate.analysis.per_class import classification_report, per_class_accuracy, true_class_probability
from lucidate.core.records import Predictions

NAMES = ("cat", "dog", "frog", "owl")


def answers(pairs: list[tuple[int, int]], names: tuple[str, ...] = NAMES) -> Predictions:
    """A table of (label, predicted) pairs."""
    labels, predicted = np.array(pairs).T
    return Predictions(
        ids=np.array([f"image-{row}" for row in range(len(pairs))]),
        index=np.arange(len(pairs)),
        labels=labels,
        logits=4 * np.eye(len(names), dtype=np.float32)[predicted],
        class_names=names,
        dataset="tiny",
        split="test",
        model="by hand",
    )


ALL_RIGHT = answers([(0, 0), (0, 0), (1, 1)])  # neither a frog nor an owl
SOME_WRONG = answers([(0, 0), (0, 2), (1, 1), (1, 1)])  # a cat taken for a frog


def test_the_same_accuracy_is_said_of_the_classes_that_have_images() -> None:
    info = per_class_accuracy(ALL_RIGHT)
    assert info.headline == (
        "Every class that has test images has the same accuracy, 100.0 %. There are no test images of frog and owl."
    )
    assert np.isnan([info.accuracy[2], info.low[2], info.high[2]]).all()
    assert info.frame().query("images == 0")["accuracy"].isna().all()
    assert "no test images of frog and owl" in per_class_accuracy(SOME_WRONG).headline
    assert per_class_accuracy(answers([(0, 0), (1, 1)], ("cat", "dog"))).headline == (
        "Every class has the same accuracy, 100.0 %."
    )


def test_means_leave_out_what_was_not_judged() -> None:
    info = classification_report(SOME_WRONG)
    assert info.recall.tolist() == pytest.approx([0.5, 1, np.nan, np.nan], nan_ok=True)
    assert info.precision.tolist() == pytest.approx([1, 1, 0, np.nan], nan_ok=True)  # one "frog", and it was wrong
    assert info.f1.tolist() == pytest.approx([2 / 3, 1, np.nan, np.nan], nan_ok=True)
    frame = info.frame().set_index("class")
    assert frame.loc["macro average", ["precision", "recall", "f1"]].tolist() == pytest.approx([1, 0.75, 5 / 6])
    assert frame.loc["weighted average", "recall"] == 0.75
    assert "over the 2 of 4 classes that have test images" in info.headline


def test_other_answers_say_it_too() -> None:
    matrix = confusion_matrix(SOME_WRONG)
    assert np.isnan(matrix.normalized[2:]).all()
    assert matrix.normalized[0].tolist() == [0.5, 0, 0.5, 0]
    assert true_class_probability(ALL_RIGHT).headline.startswith("Every class that has images gets ")
    counts = {"train": np.array([0, 1, 2, 3]), "test": np.array([0, 0, 1, 1, 3])}
    assert class_distribution(counts, NAMES).headline.endswith(" There are no test images of frog.")


def test_in_json_it_is_null(tmp_path: Path) -> None:
    analyze(SOME_WRONG).save(tmp_path)
    kept = json.loads((tmp_path / "per_class_accuracy.json").read_text())
    assert (kept["low"][2], kept["high"][2], kept["total"][2]) == (None, None, 0)
    assert json.loads((tmp_path / "classification_report.json").read_text())["recall"][2] is None


def test_few_are_named_and_many_are_counted() -> None:
    names = [f"c{k}" for k in range(12)]
    assert without_images([], "test") == ""
    assert without_images(names[:1], "test") == " There are no test images of c0."
    assert without_images(names[:4], "all") == " There are no images of c0, c1, c2 and c3."
    assert without_images(names, "test") == " There are no test images of c0, c1, c2 and 9 more classes."
