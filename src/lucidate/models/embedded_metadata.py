"""What a model that lucidate has exported says of itself in its file: enough to ask it without a TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OwnWords:
    """classes: in the order of its answers. size: pixels a side. mean: the color that it subtracts, from 0 to 1."""

    classes: tuple[str, ...]
    size: int
    mean: tuple[float, float, float]


def own_words(said: Mapping[str, Any]) -> OwnWords | None:
    """A file's metadata, where it is of ours: `class_names`, and `preprocess`, which happens inside; else None."""
    try:
        names, preprocess = said["class_names"], said["preprocess"]
        if preprocess["inside"] is not True or not all(isinstance(name, str) for name in names):
            return None
        red, green, blue = map(float, preprocess["mean"])
        return OwnWords(tuple(names), int(preprocess["size"]), (red, green, blue))
    except (KeyError, TypeError, ValueError):
        return None
