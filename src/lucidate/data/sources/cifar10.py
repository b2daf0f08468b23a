"""`cifar10`: a local copy where there is one, else a download whose hash is pinned."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from lucidate.core.atomic import sha256
from lucidate.core.errors import ChecksumError, SourceError
from lucidate.core.progress import Reporter
from lucidate.data.download import Unreachable, cache_dir, download
from lucidate.data.sources.cifar_files import PYTHON_BYTES, PYTHON_PIN, find_batches, open_archive, open_batches
from lucidate.data.sources.folder import open_folder
from lucidate.data.sources.parquet import find_tables, open_parquet
from lucidate.data.sources.source import NamedSource, Source, check_images, report, sources

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
COPIES = (ARCHIVE, "cifar-10-batches-py", "cifar-10-batches-bin", "cifar10")  # what to look for, in this order


@sources.register("cifar10")
def cifar10() -> NamedSource:
    """A copy in any form that `local_copy` looks for, or the official archive."""
    return NamedSource(open=open_cifar10, find=local_copy, fetch=fetch_cifar10, verify=verify_cifar10)


def open_cifar10(reporter: Reporter) -> Source:
    """50,000 + 10,000 images of 32×32 pixels in ten classes. Raises SourceError, ChecksumError."""
    path = local_copy() or _download(reporter)
    if path.name == ARCHIVE:
        source = open_archive(path, spec="cifar10", pin=PYTHON_PIN, reporter=reporter)
    elif find_batches(path):
        source = open_batches(path, spec="cifar10", reporter=reporter)
    elif find_tables(path):
        source = open_parquet(path, spec="cifar10", reporter=reporter)
    else:
        source = open_folder(path, spec="cifar10", reporter=reporter)
    return replace(source, dataset="cifar10")


def search_folders() -> list[Path]:
    """Where a local copy is looked for, first to last: $LUCIDATE_DATA, ./data and the cache."""
    own = os.environ.get("LUCIDATE_DATA")
    return [*([Path(own).expanduser()] if own else []), Path("data"), cache_dir()]


def local_copy() -> Path | None:
    """The first copy of CIFAR-10 on this machine, unread."""
    for folder in search_folders():
        for name in COPIES:
            path = folder / name
            if path.is_file() if name == ARCHIVE else path.is_dir() and any(path.iterdir()):
                return path
    return None


def fetch_cifar10(reporter: Reporter) -> Path:
    """The copy on this machine, or the official archive downloaded into the cache.

    An archive must have its pinned checksum; one in the cache that has not is replaced by a download. A copy in another
    form has no official bytes to be compared with. Raises ChecksumError for a wrong archive elsewhere, which is the
    user's to delete; SourceError with the ways on where there is no network.
    """
    path = local_copy()
    if path is None:
        return _download(reporter)
    if path.name != ARCHIVE or (received := sha256(path)) == PYTHON_PIN:
        return path
    if path.parent.resolve() != cache_dir().resolve():
        raise ChecksumError(
            f"{path}: expected CIFAR-10's archive with the SHA-256 checksum {PYTHON_PIN}, received {received}; "
            f"delete {path} and run `lucidate data fetch cifar10` again"
        )
    reporter.say(f"{path} is damaged (its checksum differs): fetching it anew")
    return _download(reporter)


def verify_cifar10(reporter: Reporter) -> dict[str, Any]:
    """An archive by its checksum, which opening it compares; another copy by decoding every image."""
    source, path = open_cifar10(reporter), local_copy()
    if path and path.name == ARCHIVE:
        return report(source, official=True)
    return check_images(source, official=False, reporter=reporter)


def _download(reporter: Reporter) -> Path:
    url = os.environ.get("LUCIDATE_CIFAR10_URL") or URL
    try:
        return download(url, cache_dir() / ARCHIVE, sha256=PYTHON_PIN, size=PYTHON_BYTES, reporter=reporter)
    except Unreachable as error:
        raise SourceError(
            f"data: expected a copy of cifar10 or a network to fetch it, received neither ({error}); connect and run "
            f"`lucidate data fetch cifar10`, or put {ARCHIVE} into {cache_dir()}, or pass --data PATH to a copy or "
            "--data digits"
        ) from None
