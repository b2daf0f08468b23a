"""From what a user writes after `--data` to images: a registered name, or a path whose content tells what it is.

A named source is its functions in a `NamedSource`, entered in `sources`. A new file with one is also named in the
import below.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lucidate.core.errors import SourceError
from lucidate.core.progress import Reporter, Silent, with_progress
from lucidate.data.decode import DecodeError, decode
from lucidate.data.sources import named as _named  # noqa: F401  (enters them)
from lucidate.data.sources.cifar_files import ARCHIVE_SUFFIXES, find_batches, is_official, open_archive, open_batches
from lucidate.data.sources.folder import holds_images, open_folder, walk
from lucidate.data.sources.parquet import find_tables, open_parquet
from lucidate.data.sources.source import Content, NamedSource, SetAside, Source, in_order, reason, sources

KINDS = "an image folder, a Parquet folder, CIFAR's batches or their archive"
SETTLED = 2.0  # seconds; a file changed twice within one tick of its file system's clock shows the same times

# What this process opened before, so that one command reads a source's content once: spec → (signature, source without
# its images). Nothing of it is kept on disk.
_seen: dict[str | Path, tuple[str, Source]] = {}


def open_source(spec: str | Path, *, reporter: Reporter | None = None) -> Source:
    """The images of a registered name (as text; a folder of that name is "./name") or of a path. Raises SourceError."""
    reporter = reporter or Silent()
    with _legible(spec):
        if name := named(spec):
            return name.open(reporter)
        return _open_path(_existing(spec), spec=str(spec), reporter=reporter)


def fetch_source(spec: str | Path, *, reporter: Reporter | None = None) -> Path | None:
    """Make sure that `spec` is on this machine, whole where a checksum is known; its path, or None for one embedded.

    Raises SourceError, ChecksumError.
    """
    with _legible(spec):
        if name := named(spec):
            return name.fetch(reporter or Silent())
        return _existing(spec)


def verify_source(spec: str | Path, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Read all of a source: an archive against its checksums, anything else by decoding every image.

    Gives dataset, images (how many can be read), classes, set_aside (path and reason), fingerprint; official: whether
    the archive is, to the byte, the one that its authors give, None for what has no official form.
    Raises ChecksumError for a damaged archive, SourceError for what cannot be opened.
    """
    reporter, name = reporter or Silent(), named(spec)
    source = open_source(spec, reporter=reporter)
    official: bool | None
    with _legible(spec):
        path = name.find() if name else _existing(spec)
        if path and path.is_file() and _is_archive(path):
            official, aside = name is not None or is_official(path), []  # one with a name was compared as it was opened
        else:
            official, aside = False if name and path else None, _unreadable(source, reporter)
    return {
        "dataset": source.dataset,
        "images": len(source) - len(aside),
        "classes": list(source.class_names),
        "set_aside": [{"path": each.path, "reason": each.reason} for each in (*source.set_aside, *aside)],
        "fingerprint": source.fingerprint,
        "official": official,
    }


def _unreadable(source: Source, reporter: Reporter) -> list[SetAside]:
    """The images that cannot be decoded."""

    def attempt(content: Content) -> None:
        if isinstance(content, bytes):
            decode(content, size=None)

    numbers = with_progress(range(len(source)), "verifying", reporter)
    results = zip(numbers, in_order(source, attempt), strict=True)
    return [SetAside(source.ids[index], str(fault)) for index, fault in results if isinstance(fault, DecodeError)]


def find_source(spec: str | Path) -> Path | None:
    """Where `spec` lies on this machine, unread; None for what is embedded or not there."""
    try:
        if name := named(spec):
            return name.find()
        path = Path(spec).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # opening it will say so
        return None


def named(spec: str | Path) -> NamedSource | None:
    """What is registered under `spec`; None for a path."""
    return sources.get(spec) if isinstance(spec, str) else None


def location(spec: str) -> str | None:
    """Where a source lies, absolute; None for a registered name, whatever else is called so, and for what is gone."""
    return str(Path(spec).resolve()) if not named(spec) and Path(spec).exists() else None


@contextmanager
def _legible(spec: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"data: expected {KINDS} that can be read, received {spec} ({reason(error, about=spec)}); "
            "check the path and its permissions"
        ) from None


def _existing(spec: str | Path) -> Path:
    try:
        path = Path(spec).expanduser()
    except RuntimeError:  # "~somebody" who is not known here
        path = Path(spec)
    if not str(spec) or not path.exists():
        raise SourceError(
            f"data: expected a name ({', '.join(sources)}) or an existing path, received {str(spec)!r}, "
            "which does not exist"
        )
    return path


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def _open_path(path: Path, *, spec: str, reporter: Reporter) -> Source:
    if path.is_file():
        if _is_archive(path):
            return open_archive(path, spec=spec, reporter=reporter)
        if find_tables(path):
            return open_parquet(path, spec=spec, reporter=reporter)
        raise SourceError(f"data: expected {KINDS}, received the file {path}")
    if not path.is_dir():
        raise SourceError(f"data: expected {KINDS}, received {path}, which is neither a file nor a folder")
    if not any(path.iterdir()):
        raise SourceError(f"data: expected {KINDS}, received {path}, an empty folder")
    if find_batches(path):
        return open_batches(path, spec=spec, reporter=reporter)
    if find_tables(path) and not holds_images(path):
        return open_parquet(path, spec=spec, reporter=reporter)
    return open_folder(path, spec=spec, reporter=reporter)


def signature(path: Path | None) -> str | None:
    """A digest of everything at and below `path` but the content: files and folders, their sizes, times and inodes.

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
