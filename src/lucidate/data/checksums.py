"""Checksums of a folder's files, piece by piece: one changed byte is noticed, and said where.

CRC-32, which every Python has and which a processor computes faster than it reads most disks. It tells damage, not
malice: whoever can write to the cache can write checksums too. As with `make` or `git`, a file that has the inode, size
and times that it was left with counts as untouched; what a disk loses by itself, the thorough way finds.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from lucidate.core.atomic import atomic_write

SEALS = "checksums.json"
PIECE = 1 << 20  # bytes
READ = 1 << 18  # bytes at once: what has been read is still near the processor when it is summed


State = tuple[int, int, int, int]  # inode, size, and times of the last changes to content and to the rest, in ns


def seal(folder: Path) -> None:
    """Write checksums and states of all files that lie in `folder` into one beside them, and flush them all to disk.

    The folder may be renamed afterwards.
    """
    files = sorted(folder.iterdir())
    for file in files:  # else a power cut could leave zeros behind a state that looks untouched
        with file.open("rb") as content:
            os.fsync(content.fileno())
    found = {file.name: _checksums(file) for file in files}
    states = {file.name: _state(file) for file in files}
    atomic_write(folder / SEALS, json.dumps({"crc32": found, "states": states}).encode())


def is_sealed(folder: Path) -> bool:
    """Whether `seal` was called on a folder; those of versions that had no checksums are not."""
    return (folder / SEALS).exists()


def damage(folder: Path, *, thorough: bool) -> str | None:
    """What in a sealed folder is not as it was: a file, and the first place in it; None: nothing.

    Files that nobody has touched since they were sealed, by their states, are read only if `thorough`; all others are,
    once in a process for each state. Raises OSError for a folder that is not sealed, or that cannot be read.
    """
    content = (folder / SEALS).read_bytes()
    try:
        sealed = json.loads(content)
        known = {str(name): [int(value) for value in values] for name, values in sealed["crc32"].items()}
        states = {str(name): tuple(values) for name, values in sealed["states"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{SEALS} is damaged"
    for name, expected in known.items():
        try:
            state = _state(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        if (thorough or states.get(name) != state) and (fault := _fault(folder / name, state, tuple(expected))):
            return fault
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
