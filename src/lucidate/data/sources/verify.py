"""What a source holds, told after all of it was read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lucidate.core.progress import Reporter
from lucidate.data.decode import DecodeError, decode
from lucidate.data.sources.source import Content, SetAside, Source, in_order, told


def check_images(source: Source, *, official: bool | None = None, reporter: Reporter) -> dict[str, Any]:
    """The report on a source of which every image was decoded now."""
    aside: list[SetAside] = []
    results = in_order(source, _readable)
    for index, fault in zip(told(range(len(source)), "verifying", reporter), results, strict=True):
        if isinstance(fault, DecodeError):
            aside.append(SetAside(source.ids[index], str(fault)))
    return report(source, unreadable=aside, official=official)


def report(source: Source, *, unreadable: Sequence[SetAside] = (), official: bool | None) -> dict[str, Any]:
    """dataset, images (how many can be read), classes, set_aside (path and reason), fingerprint, official.

    official: the archive is, to the byte, the one that its authors give; None for what has no official form.
    """
    return {
        "dataset": source.dataset,
        "images": len(source) - len(unreadable),
        "classes": list(source.class_names),
        "set_aside": [{"path": each.path, "reason": each.reason} for each in (*source.set_aside, *unreadable)],
        "fingerprint": source.fingerprint,
        "official": official,
    }


def _readable(content: Content) -> None:
    if not isinstance(content, np.ndarray):
        decode(content, size=None)
