"""Predictions made by anybody: a Parquet or npz table, joined to images and checked. Nothing is guessed.

label (or labels)           (N,) integers in [0, K)
logits | probabilities      (N, K) numbers: the name declares which they are
id (or ids) | index         (N,) how rows are joined to images; without either, rows must stand in the order of
                            the images and their labels must agree with them
class_names                 optional (npz key, or Parquet metadata): the order of the K columns
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lucidate.analysis.formatting import images
from lucidate.core.alignment import class_order, rows_of
from lucidate.core.errors import PredictionsError
from lucidate.core.records import METADATA_KEY, Predictions, check_scores
from lucidate.core.text import one_line
from lucidate.data.pack import Pack

TINY = 1e-38  # probabilities of 0 become this before the logarithm: the smallest normal float32
ROW_SUM_TOLERANCE = 1e-2  # float16 softmax over a thousand classes stays well inside
PLURALS = {"label": "labels", "id": "ids"}


def read_external(path: Path, pack: Pack, *, split: str | None = None) -> Predictions:
    """Read a table and join it to the images of a packed store.

    split: which of the source's images an unjoined table lists: "train", "test" or "all"; default: the test images
    where the source has them, else all.
    Raises PredictionsError.
    """
    if not path.is_file():
        raise PredictionsError(f"--predictions: expected a Parquet or npz file, received {path}, which is none")
    if split not in (None, "all", *pack.given.tolist()):
        known = ", ".join(sorted({"all", *pack.given.tolist()} - {""}))
        raise PredictionsError(f"--split: expected one of {known}, received {split}")
    try:
        return _checked({"model": path.stem, **_read(path)}, pack, split)
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from None


def _checked(table: dict[str, Any], pack: Pack, split: str | None) -> Predictions:
    """The table's values, refused where they cannot be, in the order of the store's classes."""
    given = [name for name in ("logits", "probabilities") if name in table]
    if len(given) != 1:
        raise PredictionsError(f"expected either logits or probabilities, received {'both' if given else 'neither'}")
    what, labels = given[0], table["labels"]
    scores = np.asarray(table[what])
    for name, values, kinds in ((what, scores, "fiu"), ("labels", labels, "iu"), ("index", table.get("index"), "iu")):
        if values is not None and values.dtype.kind not in kinds:
            expected = "numbers" if "f" in kinds else "whole numbers"
            raise PredictionsError(f"{name}: expected {expected}, received {values.dtype}")
    check_scores(labels, scores, pack.class_names, what=what)
    theirs, ours = tuple(map(str, table.get("class_names", ()))), pack.class_names
    if theirs and theirs != ours:
        if sorted(theirs) != sorted(ours):
            raise PredictionsError(f"class_names: expected {', '.join(ours)}, received {', '.join(theirs)}")
        labels, scores = class_order(theirs, ours)[labels], scores[:, class_order(ours, theirs)]
    rows, split = _join(table, pack, labels, split)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        logits = (_log(scores) if what == "probabilities" else scores).astype(np.float32)
    return Predictions(
        ids=pack.ids[rows],
        index=rows,
        labels=labels.astype(np.int64),
        logits=logits,
        class_names=pack.class_names,
        dataset=pack.dataset,
        split=table.get("split") or split,
        model=table["model"],
    )


def _read(path: Path) -> dict[str, Any]:
    """A table's columns as they stand in the file, by name; labels are among them."""
    columns: dict[str, Any]
    try:
        if zipfile.is_zipfile(path):
            with np.load(path, allow_pickle=False) as archive:
                columns = {name: archive[name] for name in archive.files}
        else:
            columns = _parquet_columns(path)
    except (OSError, ValueError, pa.ArrowException, zipfile.BadZipFile) as error:
        reason = one_line(error)
        raise PredictionsError(f"expected a Parquet or npz table, received one that fails: {reason}") from None
    table = {PLURALS.get(name, name): values for name, values in columns.items()}
    if "labels" not in table or table["labels"].ndim != 1:
        raise PredictionsError(f"expected a column of labels, received {', '.join(columns) or 'none'}")
    return table


def _parquet_columns(path: Path) -> dict[str, Any]:
    table = pq.read_table(path)
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name in ("logits", "probabilities"):
            if column.null_count or (len(column) and not hasattr(column, "flatten")):
                raise ValueError(f"{name} must be a list of numbers in every row")
            widths = np.unique([len(row) for row in column])
            if len(widths) > 1:
                raise ValueError(f"{name} has rows of {widths.min()} to {widths.max()} values")
            columns[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        elif name in ("label", "labels", "index", "id", "ids"):
            if column.null_count:
                raise ValueError(f"{name} has empty rows")
            columns[name] = column.to_numpy(zero_copy_only=False)
    if about := (table.schema.metadata or {}).get(METADATA_KEY):
        ours = json.loads(about)  # a table that lucidate wrote says more of itself
        columns |= {name: ours[name] for name in ("class_names", "split", "model")}
    return columns


def _log(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities as logits whose softmax gives them back."""
    shares = probabilities.astype(np.float64)
    sums = shares.sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(sums - 1) <= ROW_SUM_TOLERANCE) | (shares.min(axis=1) < 0))
    if wrong.size:
        raise PredictionsError(
            f"probabilities: expected rows of values from 0 to 1 that sum to 1, received a sum of "
            f"{sums[wrong[0]]:.4g} (row {wrong[0]}, {wrong.size} in all); if these are logits, name the column logits"
        )
    return np.log(np.maximum(shares, TINY))


def _join(table: dict[str, Any], pack: Pack, labels: NDArray[Any], split: str | None) -> tuple[NDArray[np.int64], str]:
    """(rows of the store, name of the split) of each row of the table; labels must be those of the images."""
    if "ids" in table:
        ids = table["ids"].astype(np.str_)
        rows = rows_of(pack.ids, ids)
        missing = ids[rows < 0].tolist()
        if missing:
            raise PredictionsError(
                f"id: expected ids of the images such as {pack.ids.tolist()[0]!r}, received {missing[0]!r} "
                f"({len(missing)} unknown)"
            )
        advice = "are class_names in another order, or ids of other images?"
    elif "index" in table:
        rows = table["index"].astype(np.int64)
        if rows.min() < 0 or rows.max() >= len(pack):
            raise PredictionsError(f"index: expected 0 to {len(pack) - 1}, received {rows.min()} to {rows.max()}")
        advice = "are class_names in another order, or is the index that of other images?"
    else:
        split = split or ("test" if "test" in pack.given else "all")
        rows = np.arange(len(pack)) if split == "all" else np.flatnonzero(pack.given == split)
        if len(rows) != len(labels):
            raise PredictionsError(
                f"expected {len(rows)} rows, one for each of {images(len(rows), split)} in their order, received "
                f"{len(labels)}; add a column id or index, or name the images with --split"
            )
        advice = "add a column id or index if the rows stand in another order"
    differing = np.flatnonzero(pack.labels[rows] != labels)
    if differing.size:
        row = differing[0]
        raise PredictionsError(
            f"labels: expected those of the images, received {labels[row]} where the image has "
            f"{pack.labels[rows[row]]} (row {row}, {differing.size} in all); {advice}"
        )
    given = np.unique(pack.given[rows]).tolist()
    return rows, split or (given[0] if len(given) == 1 and given[0] else "all")
