"""Tables made by anybody: what is accepted, how it is joined, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakes import random_predictions
from lucidate.analysis.findings import analyze_external
from lucidate.analysis.predictions_file import read_external
from lucidate.core.errors import PredictionsError
from lucidate.core.records import History, Predictions, softmax
from lucidate.data.pack import Pack, open_pack


@pytest.fixture(scope="module")
def pack() -> Pack:
    return open_pack("digits")


def answers(pack: Pack, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    rows = np.arange(len(pack)) if rows is None else rows
    logits = np.random.default_rng(0).normal(size=(len(rows), 10)).astype(np.float32)
    logits[np.arange(len(rows)), pack.labels[rows]] += 3
    return {"labels": pack.labels[rows], "logits": logits}


def write(path: Path, values: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **values)
    else:
        columns = {name: pa.array(list(value)) for name, value in values.items()}
        pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_both_files_and_both_kinds_of_scores_give_the_same_probabilities(
    tmp_path: Path, pack: Pack, suffix: str, kind: str
) -> None:
    values = answers(pack)
    expected = softmax(values["logits"])
    if kind == "probabilities":
        values = {"labels": values["labels"], "probabilities": expected}
    predictions = read_external(write(tmp_path / f"mine{suffix}", values), pack)
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(predictions.ids, pack.ids)
    assert (predictions.model, predictions.dataset, predictions.split) == ("mine", "digits", "all")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("key", ["id", "index"])
def test_rows_are_joined_by_id_or_index_in_any_order(tmp_path: Path, pack: Pack, suffix: str, key: str) -> None:
    rows = np.random.default_rng(1).permutation(len(pack))[:200]
    values = answers(pack, rows) | {key: pack.ids[rows] if key == "id" else rows}
    predictions = read_external(write(tmp_path / f"mine{suffix}", values), pack)
    np.testing.assert_array_equal(predictions.index, rows)
    np.testing.assert_array_equal(predictions.ids, pack.ids[rows])


def test_a_probability_of_zero_is_no_obstacle(tmp_path: Path, pack: Pack) -> None:
    values = {"labels": pack.labels, "probabilities": np.eye(10)[pack.labels]}
    predictions = read_external(write(tmp_path / "sure.npz", values), pack)
    assert predictions.accuracy == 1
    np.testing.assert_allclose(predictions.probabilities, np.eye(10)[pack.labels], atol=1e-6)


def test_classes_in_another_order_are_put_in_ours(tmp_path: Path, pack: Pack) -> None:
    order = np.random.default_rng(2).permutation(10)
    values = answers(pack)
    shuffled = {
        "labels": np.argsort(order)[values["labels"]],
        "logits": values["logits"][:, order],
        "class_names": np.array(pack.class_names)[order],
        "id": pack.ids,
    }
    predictions = read_external(write(tmp_path / "mine.npz", shuffled), pack)
    np.testing.assert_array_equal(predictions.labels, values["labels"])
    np.testing.assert_array_equal(predictions.logits, values["logits"])
    shuffled["class_names"] = np.array([*"abcdefghij"])
    with pytest.raises(PredictionsError, match="class_names: expected 0, 1, 2"):
        read_external(write(tmp_path / "mine.npz", shuffled), pack)


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda values: {key: value for key, value in values.items() if key != name}


def with_nan(values: dict[str, Any]) -> dict[str, Any]:
    logits = values["logits"].copy()
    logits[7, 3] = np.nan
    return values | {"logits": logits}


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_nan, r"received NaN \(first in row 7\)"),
        (lambda v: v | {"labels": v["labels"] + 5}, "labels: expected 0 to 9, received"),
        (lambda v: v | {"labels": v["labels"] - 1}, "labels: expected 0 to 9, received -1"),
        (lambda v: v | {"logits": v["logits"][:, :7]}, "expected 10 classes, received 7 columns"),
        (lambda v: v | {"labels": v["labels"].astype(float)}, "labels: expected whole numbers, received float64"),
        (lambda v: v | {"probabilities": v["logits"]}, "expected either logits or probabilities, received both"),
        (without("logits"), "received neither"),
        (without("labels"), "expected a column of labels"),
        (
            lambda v: {"labels": v["labels"], "probabilities": v["logits"]},
            "if these are logits, name the column logits",
        ),
        (lambda v: {name: value[:-1] for name, value in v.items()}, "expected 1797 rows"),
        (lambda v: {name: value[::-1] for name, value in v.items()}, "add a column id or index"),
        (lambda v: v | {"labels": (v["labels"] + 1) % 10, "index": np.arange(1797)}, "labels: expected those of the"),
        (lambda v: v | {"index": np.arange(1797) + 0.5}, "index: expected whole numbers, received float64"),
        (lambda v: v | {"logits": v["logits"].astype(float) * 1e300}, "received infinity"),
        (lambda v: v | {"index": np.arange(1797) + 1}, "index: expected 0 to 1796"),
        (lambda v: v | {"index": np.zeros(1797, dtype=int), "labels": np.zeros(1797, dtype=int)}, "unique ids"),
        (lambda v: v | {"id": np.array([f"no-{row}" for row in range(1797)])}, "1797 unknown"),
    ],
)
def test_what_cannot_be_analyzed_is_refused_in_one_line(
    tmp_path: Path, pack: Pack, suffix: str, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    path = write(tmp_path / f"mine{suffix}", change(answers(pack)))
    with pytest.raises(PredictionsError, match=message) as caught:
        read_external(path, pack)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path: Path, pack: Pack) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(PredictionsError, match="expected a Parquet or npz table"):
        read_external(tmp_path / "x.npz", pack)
    with pytest.raises(PredictionsError, match="which is none"):
        read_external(tmp_path / "missing.npz", pack)
    np.savez(tmp_path / "objects.npz", labels=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(PredictionsError, match="pickle"):  # and never unpickled
        read_external(tmp_path / "objects.npz", pack)


def test_findings_come_with_curves_where_a_history_is_given(tmp_path: Path, pack: Pack) -> None:
    path = write(tmp_path / "mine.npz", answers(pack))
    bare = analyze_external(path, "digits")
    assert bare.findings.accuracy_curve is None
    assert bare.findings.class_distribution.counts.sum() == len(pack)
    History((0.5,), (1.0,), (0.6,), (0.9,), (1e-3,), (1.0,)).save(tmp_path / "history.json")
    full = analyze_external(path, "digits", history=tmp_path / "history.json")
    assert full.findings.accuracy_curve is not None
    assert full.findings.summary == bare.findings.summary


def test_our_own_tables_are_read_as_anybodys_and_keep_what_they_say_of_themselves(tmp_path: Path, pack: Pack) -> None:
    rows = np.arange(300)
    ours = Predictions(
        ids=pack.ids[rows],
        index=rows,
        labels=pack.labels[rows],
        logits=random_predictions(300).logits,
        class_names=pack.class_names,
        dataset="digits",
        split="validation",
        model="compact",
    )
    ours.save(tmp_path / "ours.parquet")
    again = read_external(tmp_path / "ours.parquet", pack)
    np.testing.assert_array_equal(again.logits, ours.logits)
    assert (again.split, again.model) == ("validation", "compact")
