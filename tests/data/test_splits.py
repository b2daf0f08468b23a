from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucidate.core.errors import RunError, SourceError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack
from lucidate.data.splits import NAMES, POOLED, RunData, Splits, make_splits


def label_counts(splits: Splits, labels: np.ndarray) -> dict[str, list[int]]:
    return {name: np.bincount(labels[rows], minlength=labels.max() + 1).tolist() for name, rows in splits}


@given(
    st.lists(st.integers(0, 4), min_size=120, max_size=300),
    st.sampled_from(["official", POOLED]),
    st.integers(0, 100),
    st.floats(0.05, 0.5),
    st.booleans(),
)
def test_every_image_is_in_exactly_one_split(
    labels: list[int], scheme: str, seed: int, val_fraction: float, has_test: bool
) -> None:
    given_ = np.array(["test" if has_test and row % 5 == 0 else "train" for row in range(len(labels))])
    splits = make_splits(np.array(labels), given_, scheme=scheme, val_fraction=val_fraction, seed=seed)
    everything = np.concatenate([rows for _, rows in splits])
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(labels)))
    if scheme == "official" and has_test:
        np.testing.assert_array_equal(splits.test, np.flatnonzero(given_ == "test"))


def test_official_takes_validation_from_train_by_class() -> None:
    labels = np.tile(np.arange(10), 60)
    given_ = np.array(["train"] * 500 + ["test"] * 100)
    splits = make_splits(labels, given_, scheme="official", val_fraction=0.1, seed=0)
    assert label_counts(splits, labels) == {"train": [45] * 10, "validation": [5] * 10, "test": [10] * 10}


@pytest.mark.parametrize("scheme", [POOLED, "official"])
def test_80_10_10_is_exact_per_class_and_stands_in_where_there_is_no_test_split(scheme: str) -> None:
    labels = np.tile(np.arange(10), 60)
    splits = make_splits(labels, np.array([""] * 600), scheme=scheme, val_fraction=0.3, seed=0)
    assert splits.scheme == POOLED
    assert label_counts(splits, labels) == {"train": [48] * 10, "validation": [6] * 10, "test": [6] * 10}


def test_80_10_10_pools_what_the_source_divided() -> None:
    labels = np.tile(np.arange(10), 60)
    given_ = np.array(["train"] * 500 + ["test"] * 100)
    splits = make_splits(labels, given_, scheme=POOLED, val_fraction=0.1, seed=0)
    assert (splits.test < 500).any()


def test_the_seed_decides() -> None:
    labels, given_ = np.tile(np.arange(3), 50), np.array([""] * 150)
    first, again, other = (
        make_splits(labels, given_, scheme=POOLED, val_fraction=0.1, seed=seed) for seed in (1, 1, 2)
    )
    assert all((a == b).all() for (_, a), (_, b) in zip(first, again, strict=True))
    assert (first.test != other.test).any()


def test_too_few_images_are_refused() -> None:
    with pytest.raises(SourceError, match="leave none for validation"):
        make_splits(np.array([0, 1]), np.array(["", ""]), scheme=POOLED, val_fraction=0.1, seed=0)
    few = {"scheme": POOLED, "val_fraction": 0.1, "seed": 0, "train_size": 9}
    with pytest.raises(SourceError, match=r"and train_size=9, which leave none for .*; raise train_size"):
        make_splits(np.arange(3).repeat(50), np.array([""] * 150), **few)


def test_splits_are_stored_with_ids(tmp_path: Path) -> None:
    labels, ids = np.tile(np.arange(3), 50), np.array([f"i{row}" for row in range(150)])
    splits = make_splits(labels, np.array([""] * 150), scheme=POOLED, val_fraction=0.1, seed=0)
    splits.save(tmp_path / "splits.parquet", ids)
    again = Splits.load(tmp_path / "splits.parquet")
    assert again.scheme == splits.scheme
    for name in NAMES:
        np.testing.assert_array_equal(again.rows(name), splits.rows(name))
    with pytest.raises(RunError, match="expected one of train, validation, test, received 'tset'"):
        again.rows("tset")
    with pytest.raises(RunError, match="expected the split of a run; there is no such file"):
        Splits.load(tmp_path / "nothing.parquet")


def test_a_damaged_split_is_one_line(tmp_path: Path) -> None:
    labels, ids = np.tile(np.arange(3), 50), np.array([f"i{row}" for row in range(150)])
    splits = make_splits(labels, np.array([""] * 150), scheme=POOLED, val_fraction=0.1, seed=0)
    path = tmp_path / "splits.parquet"
    splits.save(path, ids)
    content = path.read_bytes()
    pq.write_table(pa.table({"id": ["a"], "index": ["b"], "split": ["test"]}), path)
    tables = [path.read_bytes(), content[:-9], b"", b"PAR1", *damaged(content)]
    faults = []
    for each in tables:
        path.write_bytes(each)
        try:
            Splits.load(path)
        except RunError as error:
            faults.append(str(error))
    assert len(faults) > 10
    assert set(faults) == {f"{path}: expected the split of a run, received a damaged file, or another's"}


def damaged(content: bytes) -> Iterator[bytes]:
    """The same with one byte changed, at many places."""
    for place in range(0, len(content), 7):
        yield content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


def test_rows_that_a_pack_does_not_have_are_refused(tmp_path: Path) -> None:
    run, rows = RunDir(tmp_path), np.arange(10)
    Splits(POOLED, train=rows, validation=rows[:0], test=np.array([12])).save(run.splits, np.array(["x"] * 20))
    with pytest.raises(RunError, match=r"rows of the run's 10 images, received row 12"):
        _ = RunData(run, cast(RunCard, None), cast(Pack, rows)).splits


def test_training_on_fewer_images_keeps_the_classes_and_the_test_split() -> None:
    labels = np.repeat(np.arange(4), 100)
    given_ = np.full(400, "")
    whole, less = (
        make_splits(labels, given_, scheme=POOLED, val_fraction=0.1, seed=5, train_size=size) for size in (None, 80)
    )
    assert label_counts(less, labels) == {"train": [20] * 4, "validation": [2] * 4, "test": [10] * 4}
    assert np.array_equal(less.test, whole.test)
    assert set(less.train) <= set(whole.train)
    assert set(less.validation) <= set(whole.validation)
    plenty = make_splits(labels, given_, scheme=POOLED, val_fraction=0.1, seed=5, train_size=10_000)
    assert np.array_equal(plenty.train, whole.train)
