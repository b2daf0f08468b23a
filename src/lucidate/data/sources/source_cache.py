"""What this process opened before and finds unchanged, so that one command reads a source's content once.

Unchanged is what has the same files and folders with the same sizes, times and inodes. Nothing of it is kept on disk,
and no image in memory.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from lucidate.data.decode import DecodeError
from lucidate.data.sources.folder import walk
from lucidate.data.sources.source import Content, Source

SETTLED = 2.0  # seconds; a file changed twice within one tick of its file system's clock shows the same times

_seen: dict[str | Path, tuple[str, Source]] = {}


def signature(path: Path | None) -> str | None:
    """A digest of everything at and below `path` but the content.

    None where that would not tell every change: nothing there, changed a moment ago, unreadable, links to folders.
    """
    if path is None:
        return None
    latest = time.time() - SETTLED
    try:
        digest = hashlib.sha256(os.fsencode(os.path.abspath(path)))
        for each_path in _everything(path):
            states = [os.lstat(each_path)]
            if stat.S_ISLNK(states[0].st_mode):
                states.append(os.stat(each_path))
                if stat.S_ISDIR(states[1].st_mode) and each_path != str(path):
                    return None
            for each in states:
                if max(each.st_mtime, each.st_ctime) > latest:
                    return None
                shown = (each.st_dev, each.st_ino, each.st_mode, each.st_size, each.st_mtime_ns, each.st_ctime_ns)
                digest.update(os.fsencode(each_path) + repr(shown).encode())
    except OSError:
        return None
    return digest.hexdigest()


def recall(spec: str | Path, known_by: str | None) -> Source | None:
    """The source as `remember` keeps it, if it was remembered under the same signature."""
    known, source = _seen.get(spec, (None, None))
    return source if known_by is not None and known == known_by else None


def remember(spec: str | Path, known_by: str | None, source: Source) -> None:
    """Keep a source without its images, ids, labels and given splits. known_by: its signature before it was opened."""
    if known_by is not None:
        none = np.empty(0, dtype=np.int64)
        _seen[spec] = known_by, replace(source, ids=[], labels=none, given=[], read=_no_image)


def _everything(path: Path) -> Iterator[str]:
    """`path`, and where it is a folder, all that is in it; links to folders are named but not entered."""
    yield str(path)
    if path.is_dir():
        for name, entry in walk(path):
            if isinstance(entry, OSError):
                raise entry
            yield os.path.join(path, name)


def _no_image(index: int) -> Content:
    raise DecodeError(f"image {index} is not kept in memory")
