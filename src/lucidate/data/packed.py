"""Packed stores where they lie: found by their content's key, read, and checked against their checksums."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lucidate.core.records import RunCard
from lucidate.data.checksums import damage, is_sealed
from lucidate.data.download import cache_dir
from lucidate.data.sources.source import SetAside

PACK_VERSION = 1  # raise it when the same content would give other pixels
SMALLEST_SIDE, LARGEST_SIDE = 8, 512  # pixels; what a recipe allows: the networks halve three times
UNSEALED = "made by a version that kept no checksums"


@dataclass(frozen=True, eq=False)
class PackedImages:
    """The rows of a packed store. images: uint8 (N, S, S, 3), memory-mapped. labels: (N,). ids, given: (N,) str.

    set_aside: images of the source that could not be packed.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    given: NDArray[np.str_]
    set_aside: tuple[SetAside, ...]


@dataclass(frozen=True)
class Checked:
    """A pack and what is wrong with it, as `fault` says it. side: of its images, in pixels."""

    path: Path
    side: int
    fault: str | None


def pack_key(fingerprint: str, *, side: int) -> str:
    """The hash of a pack: of the source's content and the side in pixels, wherever it lies and whatever its name."""
    return sha256(f"{fingerprint} {side} {PACK_VERSION}".encode()).hexdigest()


def find_pack(packs: Path, key: str, *, dataset: str) -> Path:
    """The folder of a pack: the one that is there, under whichever name it was packed, else where it belongs."""
    home = packs / f"{dataset}-{key[:16]}"
    if home.exists():
        return home
    return next(iter(sorted(packs.glob(f"[!.]*-{key[:16]}"))), home)


def packed_images(card: RunCard, *, cache: Path | None = None) -> PackedImages | None:
    """The packed store that a run was made from; None where this machine has none, or a damaged one.

    No source is read, nothing is fetched or made. Use `open_data` where packing anew may take its time.
    cache: default `cache_dir()`.
    """
    if not re.fullmatch("[0-9a-f]{64}", card.data.pack):  # a model without images, or a card that was tampered with
        return None
    folder = find_pack((cache or cache_dir()) / "packs", card.data.pack, dataset=card.data.dataset)
    read = read_checked if is_sealed(folder) else read_pack
    return read(folder, key=card.data.pack, side=card.data.image_size)


def fault(folder: Path, *, thorough: bool = False) -> str | None:
    """What keeps a pack from being trusted, in a few words; None: it is as it was made.

    thorough: read all its bytes, also of files that nobody has touched since.
    """
    try:
        return damage(folder, thorough=thorough) if is_sealed(folder) else UNSEALED
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


def read_checked(folder: Path, *, key: str, side: int) -> PackedImages | None:
    """As `read_pack`, and None where the pack has a `fault`."""
    return None if fault(folder) is not None else read_pack(folder, key=key, side=side)


def read_pack(folder: Path, *, key: str, side: int) -> PackedImages | None:
    """The pack in `folder`; None where it is missing, another's, or cut short. Its checksums are not looked at."""
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy")
        index = pq.read_table(folder / "index.parquet")
        aside = tuple(SetAside(path, reason) for path, reason in meta["set_aside"])
        ids, given = (np.array(index[name].to_pylist(), dtype=np.str_) for name in ("id", "given"))
        whole = (
            meta["key"] == key
            and images.shape == (meta["count"], side, side, 3)
            and images.dtype == np.uint8
            and len(labels) == len(ids) == len(given) == meta["count"]
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, OverflowError, MemoryError, pa.ArrowException):
        return None
    return PackedImages(images, labels, ids, given, aside) if whole else None


def check_packs(fingerprint: str, *, cache: Path | None = None) -> list[Checked]:
    """Every pack of a source on this machine, by the name of its folder; all their bytes are read.

    fingerprint: of the source. cache: default `cache_dir()`.
    """
    packs = (cache or cache_dir()) / "packs"
    sides = {pack_key(fingerprint, side=side)[:16]: side for side in range(SMALLEST_SIDE, LARGEST_SIDE + 1)}
    folders = [each for each in packs.iterdir() if not each.name.startswith(".")] if packs.is_dir() else []
    found = [(each, sides.get(each.name.rpartition("-")[2])) for each in sorted(folders) if each.is_dir()]
    return [Checked(folder, side, fault(folder, thorough=True)) for folder, side in found if side is not None]
