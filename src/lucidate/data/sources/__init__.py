"""From what a user writes after `--data` to images: a registered name, or a path whose content tells what it is.

Adding a named source is one file with `@sources.register("name")`, imported below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lucidate.core.errors import SourceError
from lucidate.core.progress import Reporter, Silent
from lucidate.data.decode import DecodeError, decode
from lucidate.data.sources import cifar10, digits  # noqa: F401 - importing registers them
from lucidate.data.sources.cifar_files import (
    ARCHIVE_SUFFIXES,
    find_batches,
    is_official,
    open_archive,
    open_batches,
)
from lucidate.data.sources.folder import holds_images, open_folder
from lucidate.data.sources.parquet import find_tables, open_parquet
from lucidate.data.sources.source import Content, SetAside, Source, in_order, sources

__all__ = ["SetAside", "Source", "fetch_source", "open_source", "sources", "verify_source"]

KINDS = "an image folder, a Parquet folder, CIFAR's batches or their archive"


def open_source(spec: str | Path, *, reporter: Reporter | None = None) -> Source:
    """The images that `spec` means: a registered name (as text, where a folder of that name is "./name") or a path.

    Raises SourceError.
    """
    reporter = reporter or Silent()
    try:
        if isinstance(spec, str) and spec in sources:
            return sources[spec](reporter)
        return _open_path(_existing(spec), spec=str(spec), reporter=reporter)
    except OSError as error:
        raise SourceError(f"data: expected {KINDS} that can be read, received {spec} ({error})") from None


def fetch_source(spec: str | Path, *, reporter: Reporter | None = None) -> Path | None:
    """Make sure that `spec` is on this machine; its path, or None for one that is embedded. Raises SourceError."""
    if isinstance(spec, str) and spec == "cifar10":
        return cifar10.local_copy() or cifar10.fetch_cifar10(reporter or Silent())
    if isinstance(spec, str) and spec in sources:
        return None
    return _existing(spec)


def verify_source(spec: str | Path, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Read all of a source: an archive against its checksums, anything else by decoding every image.

    Gives dataset, images (how many can be read), classes (names), set_aside (path and reason of each), fingerprint,
    official (an archive is, to the byte, CIFAR-10's own; None for what has no official form).
    Raises ChecksumError for a damaged archive, SourceError for what cannot be opened.
    """
    reporter = reporter or Silent()
    source = open_source(spec, reporter=reporter)
    aside = list(source.set_aside)
    path = cifar10.local_copy() if spec == "cifar10" and isinstance(spec, str) else Path(spec).expanduser()
    archive = path if path and path.is_file() and _is_archive(path) else None
    official = is_official(archive) if archive else (False if spec == "cifar10" else None)
    if not archive:
        for index, fault in enumerate(in_order(source, _readable)):
            if isinstance(fault, DecodeError):
                aside.append(SetAside(source.ids[index], str(fault)))
            if index % 1000 == 999 or index == len(source) - 1:
                reporter.advance("verifying", index + 1, len(source))
    return {
        "dataset": source.dataset,
        "images": len(source) - (len(aside) - len(source.set_aside)),
        "classes": list(source.class_names),
        "set_aside": [{"path": each.path, "reason": each.reason} for each in aside],
        "fingerprint": source.fingerprint,
        "official": official,
    }


def _readable(content: Content) -> None:
    if not isinstance(content, np.ndarray):
        decode(content, size=None)


def _existing(spec: str | Path) -> Path:
    path = Path(spec).expanduser()
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
