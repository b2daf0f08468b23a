"""Sources that have a name.

`cifar10`: a local copy where there is one, else a download whose hash is pinned.
`digits`: 1,797 real scans of handwritten digits that come with scikit-learn, so they need no network.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucidate.core.atomic import sha256
from lucidate.core.errors import ChecksumError, SourceError
from lucidate.core.progress import Reporter
from lucidate.data.download import Unreachable, cache_dir, download
from lucidate.data.sources.cifar_files import PYTHON_BYTES, PYTHON_PIN, find_batches, open_archive, open_batches
from lucidate.data.sources.folder import open_folder
from lucidate.data.sources.parquet import find_tables, open_parquet
from lucidate.data.sources.source import NamedSource, Source, sources

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
COPIES = (ARCHIVE, "cifar-10-batches-py", "cifar-10-batches-bin", "cifar10")  # what to look for, in this order


def open_cifar10(reporter: Reporter) -> Source:
    """50,000 + 10,000 images of 32×32 pixels in ten classes. Raises SourceError, ChecksumError."""
    path = local_copy() or _download(reporter)
    if path.name == ARCHIVE:
        source = open_archive(path, spec="cifar10", pin=PYTHON_PIN, reporter=reporter)
    else:
        open_it = open_batches if find_batches(path) else open_parquet if find_tables(path) else open_folder
        source = open_it(path, spec="cifar10", reporter=reporter)
    return replace(source, dataset="cifar10")


def local_copy() -> Path | None:
    """The first copy of CIFAR-10 in $LUCIDATE_DATA, ./data and the cache, unread."""
    own = os.environ.get("LUCIDATE_DATA")
    for folder in (*([Path(own).expanduser()] if own else []), Path("data"), cache_dir()):
        for name in COPIES:
            path = folder / name
            if path.is_file() if name == ARCHIVE else path.is_dir() and any(path.iterdir()):
                return path
    return None


def fetch_cifar10(reporter: Reporter) -> Path:
    """The copy on this machine, or the official archive downloaded into the cache.

    An archive must have its pinned checksum: one in the cache that has not is replaced by a download, one elsewhere is
    the user's to delete (ChecksumError). Raises SourceError with the ways on where there is no network.
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


def open_digits(reporter: Reporter) -> Source:  # noqa: ARG001 - every named source takes one
    """8×8 pixels; the scans' 17 gray levels (0..16) are spread over 0..255, in three equal channels."""
    table = _table()
    gray = np.rint(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = np.repeat(gray[..., None], 3, axis=-1)
    labels = table[:, 64].astype(np.int64)
    return Source(
        dataset="digits",
        spec="digits",
        class_names=tuple("0123456789"),
        ids=[f"{number:05d}" for number in range(len(images))],
        labels=labels,
        given=[""] * len(images),
        read=images.__getitem__,
        fingerprint=hashlib.sha256(b"digits" + images.tobytes() + labels.tobytes()).hexdigest(),
        flips=False,
    )


def _table() -> NDArray[np.float64]:
    """(1797, 65): 64 gray levels and the digit. From scikit-learn's file, since importing it takes over a second."""
    package = find_spec("sklearn")
    file = Path(package.origin if package and package.origin else "").parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        with gzip.open(file, "rt", encoding="ascii") as lines:
            return np.loadtxt(lines, delimiter=",")
    from sklearn.datasets import load_digits  # where a later release keeps its file elsewhere

    scans = load_digits()
    return np.column_stack([scans.data, scans.target]).astype(np.float64)


sources["cifar10"] = NamedSource(open=open_cifar10, find=local_copy, fetch=fetch_cifar10)
sources["digits"] = NamedSource(open=open_digits)
