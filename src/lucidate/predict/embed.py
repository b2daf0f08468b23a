"""Images → embeddings, what a model's last layer sees: float16, keyed by id, computed once for each weights and images.

    <run>/predictions/embeddings-<key>.parquet     of a run
    <cache>/embeddings/<key>.parquet               of a network that was trained elsewhere
        id, embedding (float16 list of D); in its metadata what it was made from, and how fast

They are written batch by batch, and found again without loading torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lucidate.core.atomic import atomic_path
from lucidate.core.errors import PredictionsError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import METADATA_KEY
from lucidate.data.pack import COMMON_SIDE, Pack, open_pack
from lucidate.data.packed import read_rows
from lucidate.predict.infer import with_progress

KINDS = (".parquet", ".npy")  # of a copy
GROUP = 8_192  # images a row group: 21 MB of 1,280 numbers each, all that is held at a time
TRIAL = 128  # images that a backend is chosen by
HALF = np.finfo(np.float16).max


@dataclass(frozen=True, eq=False)
class Embeddings:
    """ids: (N,) str. values: (N, D) float16, in the order of the source."""

    ids: NDArray[np.str_]
    values: NDArray[np.float16]

    @classmethod
    def load(cls, path: Path) -> Embeddings:
        """Read what `embed_source` wrote. Raises PredictionsError for any other file."""
        try:
            table = pq.read_table(path)
            column = table["embedding"].combine_chunks()
            values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
            return cls(np.array(table["id"].to_pylist(), dtype=np.str_), values)
        except FileNotFoundError:
            raise PredictionsError(f"{path}: expected embeddings, received no file") from None
        except (OSError, pa.ArrowException, KeyError, AttributeError) as error:
            raise PredictionsError(f"{path}: expected embeddings that lucidate wrote, received {error}") from None


@dataclass(frozen=True)
class EmbeddingFile:
    """Where embeddings lie, and how they were made. reused: they stood there before."""

    path: Path
    model: str
    dataset: str
    images: int
    dimension: int
    images_per_second: float
    backend: str
    reused: bool


@dataclass(frozen=True, eq=False)
class Backend:
    """A way to compute embeddings. name: in words. embed: images (B, S, S, 3) of the packed size → (B, D)."""

    name: str
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    batch_size: int = 32  # larger batches leave the cache and gain nothing


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model that can be asked for embeddings. key: tells its weights and its preprocessing from all others.

    size: side at which images are packed; None: their own where they agree, as of CIFAR, else, as of photos, `photos`.
    load: gets it ready, which loads torch; it is shown the first images. kept: the file for a key of the model and the
    images together.
    """

    model: str
    key: dict[str, Any]
    size: int | None
    load: Callable[[NDArray[np.uint8]], Backend]
    kept: Callable[[str], Path]
    photos: int = COMMON_SIDE


def embed_source(embedder: Embedder, source: str, *, reporter: Reporter | None = None) -> EmbeddingFile:
    """Every image of a source, embedded now if it was not before. Raises SourceError; RunError for a model without."""
    reporter = reporter or Silent()
    pack = open_pack(source, image_size=embedder.size, common=embedder.photos, reporter=reporter)
    key = hashlib.sha256(json.dumps({**embedder.key, "pack": pack.hash}, sort_keys=True).encode()).hexdigest()[:16]
    path = embedder.kept(key)
    if path.exists() and (about := _about(path)):
        return EmbeddingFile(path, **about, reused=True)
    backend = embedder.load(read_rows(pack.images, np.arange(min(len(pack), TRIAL))))
    about = {"model": embedder.model, "dataset": pack.dataset, "images": len(pack), "backend": backend.name}
    with atomic_path(path) as temporary:
        about |= _write(temporary, pack, backend, about=about, reporter=reporter)
    return EmbeddingFile(path, **about, reused=False)


def _write(path: Path, pack: Pack, backend: Backend, *, about: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Write a table batch by batch; returns what is known only then."""
    size, start, written = backend.batch_size, time.perf_counter(), 0
    each = (
        backend.embed(read_rows(pack.images, np.arange(first, min(first + size, len(pack)))))
        for first in range(0, len(pack), size)
    )
    batches = with_progress(each, len(pack), task="embedding", reporter=reporter)
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        while group := [_half(batch) for batch in islice(batches, max(GROUP // size, 1))]:
            values = np.concatenate(group)
            flat = pa.Array.from_buffers(pa.float16(), values.size, [None, pa.py_buffer(values)])  # as they lie
            column = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            table = pa.table({"id": pack.ids[written : written + len(values)].tolist(), "embedding": column})
            writer = writer or stack.enter_context(
                pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False)
            )
            writer.write_table(table)
            written += len(values)
        found = {"dimension": values.shape[1], "images_per_second": round(len(pack) / (time.perf_counter() - start), 1)}
        assert writer is not None
        writer.add_key_value_metadata({METADATA_KEY.decode(): json.dumps(about | found)})
    return found


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    return np.clip(values, -HALF, HALF).astype(np.float16)


def _about(path: Path) -> dict[str, Any] | None:
    """What a file says of itself; None for a damaged one, which is made anew."""
    try:
        about: dict[str, Any] = json.loads((pq.read_metadata(path).metadata or {})[METADATA_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    return about


def save_copy(path: Path, out: Path) -> None:
    """Write embeddings where the user wants them: Parquet as it is, or .npy of the numbers alone, (N, D) float16."""
    with atomic_path(out) as temporary:
        if out.suffix.lower() == ".parquet":
            shutil.copyfile(path, temporary)
        else:
            np.save(temporary, Embeddings.load(path).values)
