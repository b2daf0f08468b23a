"""A run's images where this machine has packed them already: no source is read, nothing is fetched or made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lucidate.core.records import RunCard
from lucidate.data.fetch import cache_dir


@dataclass(frozen=True, eq=False)
class PackedImages:
    """The rows of a packed store. images: uint8 (N, S, S, 3), memory-mapped. labels: (N,). ids: (N,) str."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]


def packed_images(card: RunCard, *, cache: Path | None = None) -> PackedImages | None:
    """The packed store that a run was made from, in milliseconds; None where this machine has none, or a damaged one.

    cache: default `cache_dir()`. Use `reopen_pack` where packing the images anew may take its time.
    """
    packs = (cache or cache_dir()) / "packs"
    # By the hash alone: the images may have been packed under another name.
    folder = next(packs.glob(f"*-{card.data.pack[:16]}"), packs / card.data.pack)
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy")
        ids = np.array(pq.read_table(folder / "index.parquet", columns=["id"])["id"].to_pylist(), dtype=np.str_)
        side = card.data.image_size
        if meta["key"] != card.data.pack or images.shape != (len(labels), side, side, 3) or len(ids) != len(labels):
            return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException):
        return None
    return PackedImages(images, labels, ids)
