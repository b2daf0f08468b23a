"""Tables of images in the Hugging Face layout: `img` or `image`, and `label`.

The bytes in the table are the image; a `path` beside them is never opened. Images are read one row group at a time,
so a table may be larger than memory.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lucidate.core.atomic import sha256
from lucidate.core.errors import SourceError
from lucidate.core.progress import Reporter, with_progress
from lucidate.data.decode import DecodeError
from lucidate.data.sources.folder import is_file, walk
from lucidate.data.sources.source import SPLIT_NAMES, Source, check_class_names, dataset_name, given_splits, numbered

SPLIT = re.compile(r"(train|test|validation|valid|val)(?![a-z])", re.IGNORECASE)
ORDER = ("train", "val", "test", "")  # images of train come first, as in CIFAR's own batches
DAMAGE = (pa.ArrowException, OSError)


@dataclass(frozen=True, eq=False)
class _Table:
    path: Path
    split: str  # "train", "val", "test" or ""
    column: str  # the images'
    labels: pa.Array
    names: tuple[str, ...] | None
    groups: NDArray[np.int64]  # number of the first row of each row group


def find_tables(path: Path) -> list[Path]:
    """The Parquet files at or below `path`, sorted; hidden ones left out."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(
        path / name
        for name, entry in walk(path, skipped=lambda name: name.startswith("."))
        if name.endswith(".parquet") and not isinstance(entry, OSError) and is_file(entry)
    )


def open_parquet(path: Path, *, spec: str, reporter: Reporter) -> Source:
    """All tables at `path`, in the order train, validation, test and then of their names.

    The split begins the file's name ("train-00000-of-00001.parquet"), or is the name of the folder that it lies in.
    The fingerprint covers the files' names and bytes. Raises SourceError.
    """
    files = find_tables(path)
    root = path if path.is_dir() else path.parent
    tables = sorted((_open(file, root) for file in files), key=lambda table: (ORDER.index(table.split), table.path))
    splits = [table.split for table in tables]
    if "" in splits and any(splits):
        raise SourceError(
            f"data: expected every table's name to begin with train, test or validation, or none, received "
            f"{tables[splits.index('')].path} beside {tables[0].path.name}"
        )
    class_names, labels = _classes(tables, where=str(path))
    role = given_splits(set(splits), where=str(path), reporter=reporter) if any(splits) else {"": ""}
    sizes: Counter[str] = Counter()
    for table in tables:
        sizes[table.split] += len(table.labels)
    digest = hashlib.sha256(b"parquet")
    for table in with_progress(tables, "reading", reporter):
        digest.update(f"{table.path.relative_to(root).as_posix()}\0{sha256(table.path)}\n".encode())
    return Source(
        dataset=dataset_name(path),
        spec=spec,
        class_names=class_names,
        ids=numbered(sizes),
        labels=labels,
        given=[role[split] for split in sizes.elements()],
        read=_Reader(tables).read,
        fingerprint=digest.hexdigest(),
        flips=True,
    )


class _Reader:
    """Row number → image bytes, keeping the last two row groups."""

    def __init__(self, tables: list[_Table]) -> None:
        self.tables = tables
        self.starts = np.cumsum([0, *(len(table.labels) for table in tables)]).tolist()
        self.lock = threading.Lock()
        self.group = lru_cache(maxsize=2)(_row_group)

    def read(self, index: int) -> bytes:
        number = bisect_right(self.starts, index) - 1
        table, row = self.tables[number], index - self.starts[number]
        group = bisect_right(table.groups, row) - 1
        with self.lock:
            images = self.group(table, group)
        content = images[row - int(table.groups[group])].as_py()
        if content is None:
            raise DecodeError("no image bytes in this row")
        return bytes(content)


def _row_group(table: _Table, group: int) -> Any:
    """The images of one row group, as bytes."""
    try:
        images = pq.ParquetFile(table.path).read_row_group(group, columns=[table.column])[table.column]
        return pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images
    except DAMAGE as error:
        raise _damaged(table.path, error) from None


def _open(path: Path, root: Path) -> _Table:
    """A table's labels and where its images stand. Raises SourceError."""
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        column = next((name for name in ("img", "image") if name in schema.names), None)
        if column is None or "label" not in schema.names:
            raise SourceError(
                f"{path}: expected the columns img (or image) and label, received {', '.join(schema.names) or 'none'}"
            )
        kind = schema.field(column).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise SourceError(f"{path}: expected {column} to hold encoded images as bytes, received {kind}")
        labels = file.read(columns=["label"])["label"].combine_chunks()
        rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    except DAMAGE as error:
        raise _damaged(path, error) from None
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    if labels.null_count:
        row = int(np.flatnonzero(labels.is_null().to_numpy(zero_copy_only=False))[0])
        raise SourceError(f"{path}: expected a label in every row, received none in row {row}")
    groups = np.cumsum([0, *rows], dtype=np.int64)[:-1]
    return _Table(path, _split(path, root), column, labels, _names(schema.metadata, path), groups)


def _split(path: Path, root: Path) -> str:
    match = SPLIT.match(path.stem) or (SPLIT.fullmatch(path.parent.name) if path.parent != root else None)
    return SPLIT_NAMES[match[1].lower()] if match else ""


def _names(metadata: dict[bytes, bytes] | None, path: Path) -> tuple[str, ...] | None:
    """Class names as the Hugging Face library notes them in the schema, or None."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return check_class_names(names, where=f"{path}: label")


def _classes(tables: list[_Table], *, where: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and every row's label as an index into them. Raises SourceError."""
    kinds = [table.labels.type for table in tables]
    text = all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds)
    if not text and not all(map(pa.types.is_integer, kinds)):
        came = ", ".join(sorted(set(map(str, kinds))))
        raise SourceError(f"{where}: expected label to hold whole numbers or text, received {came}")
    if not any(len(table.labels) for table in tables):
        raise SourceError(f"{where}: expected at least one row, received none")
    if text:
        words = np.array([word for table in tables for word in table.labels.to_pylist()], dtype=np.str_)
        names, indices = np.unique(words, return_inverse=True)
        return check_class_names(names.tolist(), where=f"{where}: label"), indices.astype(np.int64)
    labels = np.concatenate([table.labels.to_numpy(zero_copy_only=False) for table in tables]).astype(np.int64)
    noted = {table.names for table in tables if table.names}
    if len(noted) > 1:
        raise SourceError(f"{where}: expected tables with the same class names, received tables that differ")
    numbers = range(int(min(labels.max(), len(labels))) + 1)
    class_names = noted.pop() if noted else tuple(map(str, numbers))
    outside = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if outside.size:
        raise SourceError(
            f"{where}: expected labels from 0 to {len(class_names) - 1}, received {labels[outside[0]]} in row "
            f"{outside[0]} (of {outside.size} such rows)"
        )
    return class_names, labels


def _damaged(path: Path, error: Exception) -> SourceError:
    first = next(iter((getattr(error, "strerror", None) or str(error)).splitlines()), "unknown")
    return SourceError(
        f"{path}: expected a Parquet table, received one that is damaged or another file ({first:.120}); "
        "write it again, or remove it"
    )
