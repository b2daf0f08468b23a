"""From what a user writes after `--data` to images: a registered name, or a path whose content tells what it is.

A named source is one file: its functions in a `NamedSource` under `@sources.register("name")`. Importing this registers
every source, so a new file is also named in the import below.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lucidate.core.errors import SourceError
from lucidate.core.progress import Reporter, Silent
from lucidate.data.sources import cifar10 as _cifar10  # noqa: F401  (registers)
from lucidate.data.sources import digits as _digits  # noqa: F401
from lucidate.data.sources.cifar_files import ARCHIVE_SUFFIXES, find_batches, is_official, open_archive, open_batches
from lucidate.data.sources.folder import holds_images, open_folder
from lucidate.data.sources.parquet import find_tables, open_parquet
from lucidate.data.sources.source import NamedSource, SetAside, Source, check_images, reason, report, sources

__all__ = ["SetAside", "Source", "fetch_source", "location", "open_source", "sources", "verify_source"]

KINDS = "an image folder, a Parquet folder, CIFAR's batches or their archive"


def open_source(spec: str | Path, *, reporter: Reporter | None = None) -> Source:
    """The images that `spec` means: a registered name (as text, where a folder of that name is "./name") or a path.

    Raises SourceError.
    """
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

    Gives `source.report`: dataset, images, classes, set_aside, fingerprint, official.
    Raises ChecksumError for a damaged archive, SourceError for what cannot be opened.
    """
    reporter = reporter or Silent()
    with _legible(spec):
        if name := named(spec):
            return name.verify(reporter) if name.verify else check_images(name.open(reporter), reporter=reporter)
        source, path = open_source(spec, reporter=reporter), _existing(spec)
        if path.is_file() and _is_archive(path):
            return report(source, official=is_official(path))
        return check_images(source, reporter=reporter)


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
    return sources[spec]() if isinstance(spec, str) and spec in sources else None


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
