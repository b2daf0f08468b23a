"""Checksums of a folder's files, piece by piece: one changed byte is noticed, and said where.

CRC-32, which every Python has and which a processor computes faster than it reads most disks. It tells damage, not
malice: whoever can write to the cache can write checksums too.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from lucidate.core.rundir import atomic_write

SEALS = "checksums.json"
PIECE = 1 << 20  # bytes
READ = 1 << 18  # bytes at once: what has been read is still near the processor when it is summed


def seal(folder: Path) -> None:
    """Write the checksums of all files that lie in `folder` now into a file beside them."""
    found = {file.name: _checksums(file) for file in sorted(folder.iterdir())}
    atomic_write(folder / SEALS, json.dumps({"crc32": found}).encode())


def is_sealed(folder: Path) -> bool:
    """Whether `seal` was called on a folder; those of versions that had no checksums are not."""
    return (folder / SEALS).exists()


def damage(folder: Path) -> str | None:
    """What in a sealed folder is not as it was: a file, and the first place in it; None: nothing.

    All of it is read, once in a process as long as files keep their sizes and times. Raises OSError for a folder that
    is not sealed, or that cannot be read.
    """
    states = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    return _damage(folder, tuple((name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in states))


@lru_cache(maxsize=64)
def _damage(folder: Path, states: tuple[tuple[str, int, int, int, int], ...]) -> str | None:
    content = (folder / SEALS).read_bytes()
    try:
        sealed = json.loads(content)["crc32"]
        known = {str(name): [int(value) for value in values] for name, values in sealed.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{SEALS} is damaged"
    if missing := sorted(known.keys() - {name for name, *_ in states}):
        return f"{missing[0]} is missing"
    for name, expected in known.items():
        received = _checksums(folder / name)
        for piece, (one, other) in enumerate(zip(expected, received, strict=False)):
            if one != other:
                return f"{name} differs from its checksum between byte {piece * PIECE:,} and {(piece + 1) * PIECE:,}"
        if len(expected) != len(received):
            return f"{name} has another length than it was written with"
    return None


def _checksums(file: Path) -> list[int]:
    """CRC-32 of each piece, by as many threads as there are processors: zlib lets them run at once."""
    pieces = -(-file.stat().st_size // PIECE)
    workers = min(os.cpu_count() or 1, 8, pieces // 16 + 1)
    values = [0] * pieces

    def work(first: int) -> None:
        buffer = memoryview(bytearray(READ))
        with file.open("rb", buffering=0) as content:
            for piece in range(first, pieces, workers):
                content.seek(piece * PIECE)
                values[piece] = _checksum(content, buffer)

    if workers == 1:
        work(0)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, range(workers)))
    return values


def _checksum(content: io.FileIO, buffer: memoryview) -> int:
    """CRC-32 of the next piece, or of what is left of the file."""
    value, left = 0, PIECE
    while left and (count := content.readinto(buffer[: min(left, READ)])):
        value, left = zlib.crc32(buffer[:count], value), left - count
    return value
