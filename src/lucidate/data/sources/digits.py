"""`digits`: 1,797 real scans of handwritten digits that come with scikit-learn, so they need no network."""

from __future__ import annotations

import gzip
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucidate.core.progress import Reporter
from lucidate.data.sources.source import NamedSource, Source, sources


@sources.register("digits")
def digits() -> NamedSource:
    """Embedded."""
    return NamedSource(open=open_digits)


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
    for folder in (package.submodule_search_locations or ()) if package else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            with gzip.open(file, "rt", encoding="ascii") as lines:
                return np.loadtxt(lines, delimiter=",")
    from sklearn.datasets import load_digits  # where a later release keeps its file elsewhere

    scans = load_digits()
    return np.column_stack([scans.data, scans.target]).astype(np.float64)
