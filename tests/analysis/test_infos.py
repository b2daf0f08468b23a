"""The values in each Info, on tables small enough to count by hand."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest

from fakes import random_predictions
from lucidate.analysis.confidence import confidence_histogram
from lucidate.analysis.confusion import confusion_matrix, top_confusions
from lucidate.analysis.dataset import class_distribution, examples_per_class
from lucidate.analysis.findings import Images, analyze
from lucidate.analysis.formatting import percent
from lucidate.analysis.per_class import classification_report, true_class_probability
from lucidate.analysis.samples import hard_but_correct, misclassified, most_confident
from lucidate.analysis.summary import accuracy_curve, loss_curve
from lucidate.core.records import History, Predictions


def table(rows: list[tuple[int, list[float]]], names: tuple[str, ...] = ("cat", "dog", "frog")) -> Predictions:
    """A table from (label, probabilities) pairs."""
    return Predictions(
        ids=np.array([f"image-{row}" for row in range(len(rows))]),
        index=np.arange(len(rows)) + 100,
        labels=np.array([label for label, _ in rows]),
        logits=np.log(np.array([scores for _, scores in rows])).astype(np.float32),
        class_names=names,
        dataset="tiny",
        split="test",
        model="by hand",
    )


TINY = table(
    [
        (0, [0.9, 0.05, 0.05]),  # right
        (0, [0.2, 0.7, 0.1]),  # cat → dog
        (0, [0.3, 0.6, 0.1]),  # cat → dog
        (1, [0.4, 0.45, 0.15]),  # right, hard
        (1, [0.95, 0.03, 0.02]),  # dog → cat, sure
        (2, [0.1, 0.1, 0.8]),  # right
    ]
)


def test_confusion_names_the_most_frequent_pair() -> None:
    info = confusion_matrix(TINY)
    assert info.counts.tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 1]]
    assert info.normalized[0].tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    assert "cat → dog is the most frequent confusion: 2 of 3 images of cat (66.7 %)" in info.headline
    assert info.frame().query("true_class == 'cat' and predicted_class == 'dog'")["count"].item() == 2


def test_top_confusions_list_each_class_and_the_pair_both_ways() -> None:
    info = top_confusions(TINY)
    assert list(zip(info.true, info.predicted, info.counts, strict=True)) == [(0, 1, 2), (1, 0, 1)]
    assert info.pair == (0, 1)
    assert info.pair_count == 3
    assert info.errors == 3
    assert info.shares.tolist() == pytest.approx([2 / 3, 1 / 2])


def test_the_pair_both_ways_is_not_limited_to_the_listed_ones() -> None:
    predictions = random_predictions(3000, 10, skill=0.5)
    wrong = confusion_matrix(predictions).counts.copy()
    np.fill_diagonal(wrong, 0)
    info = top_confusions(predictions, per_class=1)
    assert info.pair_count == (wrong + wrong.T).max()


def test_most_confident_are_sorted_and_of_one_kind() -> None:
    right, wrong = (most_confident(TINY, correct=correct) for correct in (True, False))
    assert right.tiles.ids.tolist() == ["image-0", "image-5", "image-3"]
    assert wrong.tiles.ids.tolist() == ["image-4", "image-1", "image-2"]
    assert wrong.tiles.confidence.tolist() == pytest.approx([0.95, 0.7, 0.6], abs=1e-6)
    assert right.widened
    assert right.tiles.index.tolist() == [100, 105, 103]


def test_one_percent_is_one_percent_where_it_is_enough() -> None:
    predictions = random_predictions(10_000, skill=2.0)
    info = most_confident(predictions, correct=True)
    assert len(info.tiles) == int(np.ceil(info.pool / 100))
    assert not info.widened
    left_out = np.setdiff1d(predictions.ids[predictions.correct], info.tiles.ids)
    rest = predictions.confidence[np.isin(predictions.ids, left_out)]
    assert rest.max() <= info.tiles.confidence.min()


def test_hard_but_correct_come_lowest_first() -> None:
    info = hard_but_correct(TINY, shown=2)
    assert info.tiles.ids.tolist() == ["image-3", "image-5"]
    assert info.pool == 3
    assert info.below_half == 1


def test_misclassified_is_a_seeded_sample_of_the_errors() -> None:
    predictions = random_predictions(2000, skill=1.0)
    info, again, other = (misclassified(predictions, seed=seed) for seed in (0, 0, 1))
    assert len(info.tiles) == 100
    assert (info.tiles.labels != info.tiles.predicted).all()
    assert info.tiles.ids.tolist() == again.tiles.ids.tolist() != other.tiles.ids.tolist()
    assert len(misclassified(TINY).tiles) == 3


def test_true_class_probability_by_class() -> None:
    info = true_class_probability(TINY)
    assert info.mean.tolist() == pytest.approx([(0.9 + 0.2 + 0.3) / 3, (0.45 + 0.03) / 2, 0.8], abs=1e-6)
    assert info.median.tolist() == pytest.approx([0.3, 0.24, 0.8], abs=1e-6)


def test_confidence_histogram_counts_everything_once() -> None:
    info = confidence_histogram(TINY)
    assert info.right.sum() == 3
    assert info.wrong.sum() == 3
    assert info.sure_wrong == 1
    assert info.mean_wrong == pytest.approx((0.7 + 0.6 + 0.95) / 3, abs=1e-6)
    certain = table([(0, [1 - 2e-12, 1e-12, 1e-12])])
    assert confidence_histogram(certain).right[-1] == 1  # the upper edge belongs to the last bin


def test_class_distribution_and_its_imbalance() -> None:
    info = class_distribution({"train": np.array([0, 0, 0, 1]), "test": np.array([1])}, ("cat", "dog"))
    assert info.counts.tolist() == [[3, 1], [0, 1]]
    assert info.imbalance == 1.5
    assert "cat has the most (3, 60.0 %)" in info.headline
    assert info.frame().columns.tolist() == ["class", "train", "test"]


def test_examples_are_of_their_class_and_repeatable() -> None:
    labels = np.repeat([0, 1, 2], [50, 4, 50])
    ids = np.array([f"i{row}" for row in range(len(labels))])
    info = examples_per_class(ids, np.arange(104), labels, ("a", "b", "c"), split="train")
    assert np.bincount(info.labels).tolist() == [10, 4, 10]
    assert (labels[info.index] == info.labels).all()
    again = examples_per_class(ids, np.arange(104), labels, ("a", "b", "c"), split="train")
    assert info.ids.tolist() == again.ids.tolist()


def test_curves_find_the_best_epoch_and_the_gap() -> None:
    history = History((0.5, 0.9, 0.95), (1.0, 0.5, 0.2), (0.6, 0.8, 0.7), (0.9, 0.6, 0.8), (1e-3,) * 3, (1.0,) * 3)
    accuracy, loss = accuracy_curve(history), loss_curve(history)
    assert (accuracy.best_epoch, accuracy.best) == (2, 0.8)
    assert accuracy.gap == pytest.approx(0.1)
    told = "best at epoch 2 of 3: 80.0 %; training accuracy there is 10.0 percentage points higher."
    assert accuracy.headline == f"Validation accuracy is {told}"
    assert (loss.best_epoch, loss.best) == (2, 0.6)
    assert loss.gap == pytest.approx(0.1)
    assert loss.headline.endswith("0.600 nats; training loss there is 0.100 nats lower.")


def test_no_error_at_all_is_said_and_nothing_breaks(tmp_path: Path) -> None:
    findings = analyze(random_predictions(skill=float("inf")))
    assert findings.summary.accuracy == 1
    assert len(findings.misclassified.tiles) == len(findings.most_confident_wrong.tiles) == 0
    assert "Nothing is confused: all 500 images are right." in findings.confusion_matrix.headline
    findings.save(tmp_path)


def test_all_wrong_is_said_and_nothing_breaks(tmp_path: Path) -> None:
    findings = analyze(random_predictions(skill=float("-inf")))
    assert findings.summary.accuracy == 0
    assert findings.hard_but_correct.headline == "There is no right prediction."
    findings.save(tmp_path)


def test_ties_are_not_presented_as_findings() -> None:
    info = confusion_matrix(table([(0, [0.1, 0.8, 0.1]), (1, [0.8, 0.1, 0.1]), (2, [0.1, 0.1, 0.8])]))
    assert info.headline.startswith("No pair of classes stands out: cat → dog is one of 2")
    perfect = classification_report(random_predictions(skill=float("inf")))
    assert perfect.headline == "Macro F1 is 100.0 %, the same for each."


@pytest.mark.parametrize("errors", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_sentences_hold_for_any_small_number(count: int, errors: int) -> None:
    rows = [(0, [0.2, 0.7, 0.1] if row < errors else [0.8, 0.1, 0.1]) for row in range(count)]
    findings = analyze(table(rows))
    for field in fields(findings):
        info = getattr(findings, field.name)
        if info is not None:
            assert "nan" not in info.headline
            assert not re.search(r"\b1 (images|errors|predictions|answers)\b|\ball [12] |\b0 of 0\b", info.headline), (
                info.headline
            )


def test_a_share_is_never_rounded_to_all_or_none() -> None:
    assert [percent(share) for share in (0, 0.0001, 0.5, 0.9996, 1)] == [
        "0.0 %",
        "0.1 %",
        "50.0 %",
        "99.9 %",
        "100.0 %",
    ]


def test_every_info_is_frozen_has_numbers_and_words_and_is_kept_as_json(tmp_path: Path) -> None:
    history = History((0.5,), (1.0,), (0.6,), (0.9,), (1e-3,), (1.0,))
    predictions = random_predictions()
    images = Images({"train": predictions.ids}, {"train": predictions.index}, {"train": predictions.labels})
    findings = analyze(predictions, history=history, images=images)
    findings.save(tmp_path)
    for field in fields(findings):
        info = getattr(findings, field.name)
        assert len(info.frame()) > 0
        assert info.headline.endswith((".", "?"))
        with pytest.raises(FrozenInstanceError):
            setattr(info, fields(info)[0].name, None)
        kept = json.loads((tmp_path / f"{field.name}.json").read_text())
        assert kept["headline"] == info.headline
    assert analyze(predictions).accuracy_curve is None
