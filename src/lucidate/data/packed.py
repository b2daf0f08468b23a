"""Packed stores where they lie: found by their content's key, sealed with checksums, read.

Checksums are by piece: one changed byte is noticed, and said where. CRC-32, which every Python has, tells damage, not
malice: whoever can write to the cache can write checksums too. As with `make` or `git`, a file that has the inode, size
and times that it was left with counts as untouched; what a disk loses by itself, the thorough way finds.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lucidate.core.atomic import atomic_write
from lucidate.core.records import RunCard
from lucidate.data.download import cache_dir
from lucidate.data.sources.source import SetAside

PACK_VERSION = 1  # raise it when the same content would give other pixels
SMALLEST_SIDE, LARGEST_SIDE = 8, 512  # pixels; what a recipe allows: the networks halve three times
UNSEALED = "made by a version that kept no checksums"
SEALS = "checksums.json"
PIECE = 1 << 20  # bytes that share a checksum
LARGE = 512 * 2**20  # bytes; smaller stores may stay in memory as a whole

State = tuple[int, int, int, int]  # inode, size, and times of the last changes to content and to the rest, in ns


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedImages:
    """Packed images, one row each in all arrays; the order is the source's.

    images: uint8 (N, side, side, 3), memory-mapped and read-only. labels: int64 (N,). ids: (N,) str.
    given: (N,) "train", "test" or "". set_aside: images of the source that could not be packed.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    given: NDArray[np.str_]
    set_aside: tuple[SetAside, ...]


def pack_key(fingerprint: str, *, side: int) -> str:
    """The hash of a pack: of the source's content and the side in pixels, wherever it lies and whatever its name."""
    return sha256(f"{fingerprint} {side} {PACK_VERSION}".encode()).hexdigest()


def find_pack(packs: Path, key: str, *, dataset: str) -> Path:
    """The folder of a pack: the one that is there, under whichever name it was packed, else where it belongs."""
    home = packs / f"{dataset}-{key[:16]}"
    if home.exists():
        return home
    return next(iter(sorted(packs.glob(f"[!.]*-{key[:16]}"))), home)


def packed_images(card: RunCard) -> PackedImages | None:
    """The packed store that a run was made from, if it is here and whole; `open_data` also packs anew."""
    if not re.fullmatch("[0-9a-f]{64}", card.data.pack):  # a model without images, or a card that was tampered with
        return None
    folder = find_pack(cache_dir() / "packs", card.data.pack, dataset=card.data.dataset)
    return read_pack(folder, key=card.data.pack, side=card.data.image_size, unsealed=True)


def read_pack(folder: Path, *, key: str, side: int, unsealed: bool = False) -> PackedImages | None:
    """The pack in `folder`; None: missing, another's, cut short, or with a `fault`. unsealed: needs no checksums."""
    if fault(folder) not in (None, UNSEALED if unsealed else None):
        return None
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy")
        index = pq.read_table(folder / "index.parquet")
        aside = tuple(SetAside(path, reason) for path, reason in meta["set_aside"])
        ids, given = (np.array(index[name].to_pylist(), dtype=np.str_) for name in ("id", "given"))
        whole = meta["key"] == key and images.dtype == np.uint8 and images.shape == (meta["count"], side, side, 3)
        whole = whole and len(labels) == len(ids) == len(given) == meta["count"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, OverflowError, MemoryError, pa.ArrowException):
        return None
    return PackedImages(images=images, labels=labels, ids=ids, given=given, set_aside=aside) if whole else None


def read_rows(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A copy of some rows of a store (N, S, S, 3), without keeping a large store's pages, which count as our memory."""
    chosen: NDArray[np.uint8] = images[rows]
    mapped = getattr(images, "_mmap", None)  # of a numpy.memmap, which has no public name for it
    if images.nbytes > LARGE and mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    return chosen


def check_packs(fingerprint: str) -> list[tuple[Path, int, str | None]]:
    """(folder, side, `fault`) of every pack of a source on this machine; all their bytes are read."""
    packs = cache_dir() / "packs"
    sides = {pack_key(fingerprint, side=side)[:16]: side for side in range(SMALLEST_SIDE, LARGEST_SIDE + 1)}
    folders = [each for each in packs.iterdir() if not each.name.startswith(".")] if packs.is_dir() else []
    found = [(each, sides.get(each.name.rpartition("-")[2])) for each in sorted(folders) if each.is_dir()]
    return [(folder, side, fault(folder, thorough=True)) for folder, side in found if side is not None]


def seal(folder: Path) -> None:
    """Write checksums and states of all files in `folder` beside them, and flush all to disk; it may be renamed."""
    files = sorted(folder.iterdir())
    for file in files:  # else a power cut could leave zeros behind a state that looks untouched
        with file.open("rb") as content:
            os.fsync(content.fileno())
    sums, states = {file.name: _checksums(file) for file in files}, {file.name: _state(file) for file in files}
    atomic_write(folder / SEALS, json.dumps({"crc32": sums, "states": states}).encode())


def fault(folder: Path, *, thorough: bool = False) -> str | None:
    """What keeps a folder that `seal` was called on from being trusted, in a few words; None: it is as it was.

    Files that nobody has touched since, by their states, are read only if `thorough`; others once for each state.
    """
    try:
        sealed = json.loads((folder / SEALS).read_bytes())
        known = {str(name): tuple(map(int, sums)) for name, sums in sealed["crc32"].items()}
        states = {str(name): tuple(state) for name, state in sealed["states"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return UNSEALED
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{SEALS} is damaged"
    for name, expected in known.items():
        try:
            state = _state(folder / name)
            untouched = states.get(name) == state and not thorough
            found = None if untouched else _fault(folder / name, state, expected)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"
        if found:
            return found
    return None


def _state(file: Path) -> State:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=64)
def _fault(file: Path, state: State, expected: tuple[int, ...]) -> str | None:
    received = _checksums(file)
    for piece, (one, other) in enumerate(zip(expected, received, strict=False)):
        if one != other:
            end = min((piece + 1) * PIECE, state[1])
            return f"{file.name} differs from its checksum between byte {piece * PIECE:,} and {end:,}"
    if len(expected) != len(received):
        return f"{file.name} has another length than it was written with"
    return None


def _checksums(file: Path) -> list[int]:
    """CRC-32 of each piece, several at once: zlib lets other threads run."""

    def checksum(piece: int) -> int:
        with file.open("rb", buffering=0) as content:
            content.seek(piece * PIECE)
            return zlib.crc32(content.read(PIECE))

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        return list(pool.map(checksum, range(-(-file.stat().st_size // PIECE))))
