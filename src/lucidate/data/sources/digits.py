"""`digits`: 1,797 real scans of handwritten digits that come with scikit-learn, so they need no network."""

from __future__ import annotations

import hashlib

import numpy as np

from lucidate.core.progress import Reporter
from lucidate.data.sources.source import Source, sources


@sources.register("digits")
def open_digits(reporter: Reporter) -> Source:  # noqa: ARG001 - every named source takes one
    """8×8 pixels; the scans' 17 gray levels (0..16) are spread over 0..255, in three equal channels."""
    from sklearn.datasets import load_digits  # scikit-learn takes a third of a second to import

    scans = load_digits()
    gray = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(gray[..., None], 3, axis=-1)
    labels = scans.target.astype(np.int64)
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
