from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import random_predictions
from lucidate.core.errors import PredictionsError, RunError
from lucidate.core.records import History, Predictions, jsonable, slug, softmax

EPOCH = {
    "accuracy": 0.5,
    "loss": 1.0,
    "val_accuracy": 0.6,
    "val_loss": 0.9,
    "learning_rate": 1e-3,
    "epoch_seconds": 2.0,
    "images": 60.0,
}


def test_predictions_come_back_from_parquet_as_they_went(tmp_path: Path) -> None:
    predictions = random_predictions()
    predictions.save(tmp_path / "p.parquet")
    again = Predictions.load(tmp_path / "p.parquet")
    for name in ("ids", "index", "labels", "logits"):
        np.testing.assert_array_equal(getattr(again, name), getattr(predictions, name))
    assert (again.class_names, again.dataset, again.split, again.model) == (
        predictions.class_names,
        "fake",
        "test",
        "two_layers",
    )


def test_the_same_predictions_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        random_predictions().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"logits": np.where(p.labels[:, None] == 3, np.nan, p.logits)}, "received NaN"),
        (lambda p: {"logits": np.where(p.labels[:, None] == 3, np.inf, p.logits)}, "received infinity"),
        (lambda p: {"logits": np.where(p.labels[:, None] == 3, -np.inf, p.logits)}, "received infinity"),
        (lambda p: {"labels": p.labels + 1}, "expected 0 to 9, received 10"),
        (lambda p: {"labels": p.labels - 1}, "received -1"),
        (lambda p: {"logits": p.logits[:, :9]}, "expected 10 classes, received 9"),
        (lambda p: {"logits": p.logits[:-1]}, "one row a label"),
        (lambda p: {"ids": p.ids[:-1]}, "one id and index a label"),
        (lambda p: {"ids": np.full(len(p), "same")}, "unique ids"),
        (lambda p: {name: getattr(p, name)[:0] for name in ("ids", "index", "labels", "logits")}, "at least one row"),
    ],
)
def test_predictions_that_cannot_be_are_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    predictions = random_predictions()
    with pytest.raises(PredictionsError, match=message):
        replace(predictions, **change(predictions))


def test_a_file_that_is_no_predictions_table(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(PredictionsError, match="expected a predictions table"):
        Predictions.load(tmp_path / "x.parquet")
    with pytest.raises(PredictionsError, match="received no file"):
        Predictions.load(tmp_path / "y.parquet")


@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=5))
def test_softmax_gives_probabilities_in_the_order_of_the_logits(rows: list[list[float]]) -> None:
    logits = np.array(rows, dtype=np.float32)
    probabilities = softmax(logits)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    best = probabilities[np.arange(len(rows)), logits.argmax(axis=1)]
    np.testing.assert_array_equal(best, probabilities.max(axis=1))


def test_the_most_confident_are_told_apart_where_float32_ties() -> None:
    logits = np.array([[20.0, 0.0], [30.0, 0.0]], dtype=np.float32)
    assert np.float32(softmax(logits)[0, 0]) == np.float32(softmax(logits)[1, 0]) == 1
    assert softmax(logits)[0, 0] < softmax(logits)[1, 0]


def test_history_grows_by_whole_epochs_and_has_keras_keys(tmp_path: Path) -> None:
    history = History().with_epoch(**EPOCH).with_epoch(**EPOCH)
    history.save(tmp_path / "history.json")
    assert json.loads((tmp_path / "history.json").read_text()) == {key: [value] * 2 for key, value in EPOCH.items()}
    assert History.load(tmp_path / "history.json") == history
    with pytest.raises(ValueError, match="loss"):
        History().with_epoch(accuracy=0.5)


@pytest.mark.parametrize("content", ["[1]", "{", '{"loss": [1]}', '{"loss": "ab"}', "{}"])
def test_a_file_that_is_no_history(tmp_path: Path, content: str) -> None:
    (tmp_path / "h.json").write_text(content)
    with pytest.raises(RunError, match="expected"):
        History.load(tmp_path / "h.json")


def test_one_class_may_have_no_probability_at_all() -> None:
    predictions = random_predictions(3)
    logits = predictions.logits.copy()
    logits[0, 4] = -np.inf
    assert replace(predictions, logits=logits).probabilities[0, 4] == 0


def test_a_history_keeps_a_loss_that_json_cannot_write(tmp_path: Path) -> None:
    History().with_epoch(**{**EPOCH, "val_loss": float("nan")}).save(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text())["val_loss"] == [None]
    assert np.isnan(History.load(tmp_path / "h.json").val_loss[0])


@given(st.text())
def test_a_slug_is_a_safe_file_name(text: str) -> None:
    assert set(slug(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert 0 < len(slug(text)) <= 60


def test_long_names_stay_apart() -> None:
    assert slug("a" * 200 + "1") != slug("a" * 200 + "2")


def test_jsonable_writes_what_json_lacks_as_null() -> None:
    value = {"a": np.array([1.0, np.nan]), "b": (np.int64(2), float("inf")), "c": History(loss=(1.0,))}
    text = json.dumps(jsonable(value), allow_nan=False)
    assert json.loads(text)["a"] == [1.0, None]
    assert json.loads(text)["b"] == [2, None]
    assert json.loads(text)["c"]["loss"] == [1.0]
