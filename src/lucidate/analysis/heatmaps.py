"""Where does the model look, on the images worth a look? Heatmaps as numbers and colors; `explain` makes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.confusion import top_confusions
from lucidate.analysis.formatting import count
from lucidate.analysis.samples import TILE_ARRAYS, Tiles, hard_but_correct, most_confident, pick, ranked
from lucidate.core.alignment import rows_of
from lucidate.core.atomic import atomic_path
from lucidate.core.errors import RunError
from lucidate.core.records import Predictions, jsonable

SHOWN = 20  # images a group
TITLES = {
    "gradcam": "Grad-CAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "gradcam++": "Grad-CAM++",
    "eigencam": "Eigen-CAM",
    "rollout": "attention rollout",
    "integrated-gradients": "integrated gradients",
}  # methods as people write them


@dataclass(frozen=True, eq=False)
class Group:
    """Images with two heatmaps each.

    key, title: of the group. tiles: T images. other: (T,) the class that the second map is of: the true one of a wrong
    answer, the second likeliest of a right one. first, second: (T, h, w) float32, scaled to a highest value of 1: what
    speaks for the predicted class, and for the other. first_peak, second_peak: (T,) highest values before; 0: empty.
    """

    key: str
    title: str
    tiles: Tiles
    other: NDArray[np.int64]
    first: NDArray[np.float32]
    second: NDArray[np.float32]
    first_peak: NDArray[np.float32]
    second_peak: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """What a method says of a split.

    layer: where maps were taken, in words. empty: maps without anything, of `images`. verdict: whether to trust them;
    trust: the figures behind it. mean_maps: (K, h, w), mean map of the images answered with each class; center: (K,)
    share of it in the middle quarter of the area, .25 where it is even.
    """

    method: str
    layer: str
    split: str
    images: int
    empty: int
    class_names: tuple[str, ...]
    verdict: str
    trust: Mapping[str, Any]
    mean_maps: NDArray[np.float32]
    center: NDArray[np.float64]
    groups: tuple[Group, ...]

    @property
    def title(self) -> str:
        """The method, as people write it."""
        return TITLES.get(self.method, self.method)

    @property
    def headline(self) -> str:
        empty = f"{count(self.empty, 'map')} of {self.images:,} say nothing. " if self.empty else ""
        return f"{empty}Verdict: {self.verdict}."

    def frame(self) -> pd.DataFrame:
        """One row an image and map: group, id, classes, the class explained, the map's peak."""
        parts = []
        for group in self.groups:
            for classes, peaks in ((group.tiles.predicted, group.first_peak), (group.other, group.second_peak)):
                rows = group.tiles.frame()
                rows.insert(0, "group", group.key)
                rows["explained_class"] = np.array(self.class_names)[classes]
                rows["peak"] = peaks
                parts.append(rows)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def save(self, path: Path) -> None:
        """Write one npz: arrays as such, the rest as JSON; nothing in it is a pickle."""
        about = {name: jsonable(getattr(self, name)) for name in _WORDS}
        about["groups"] = [{"key": group.key, "title": group.title} for group in self.groups]
        arrays: dict[str, NDArray[Any]] = {"mean_maps": self.mean_maps, "center": self.center}
        for group in self.groups:
            arrays |= {f"{group.key}.{name}": getattr(group, name) for name in _MAPS}
            arrays |= {f"{group.key}.tiles.{name}": getattr(group.tiles, name) for name in TILE_ARRAYS}
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, about=text, **arrays)  # type: ignore[arg-type]  # of any type and shape

    @classmethod
    def load(cls, path: Path) -> Heatmaps:
        """Read what `save` wrote. Raises RunError for any other file."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = dict(stored)
            about = json.loads(arrays.pop("about").tobytes())
            about["class_names"] = tuple(about["class_names"])
            groups = []
            for group in about.pop("groups"):
                tiles = {name: arrays[f"{group['key']}.tiles.{name}"] for name in TILE_ARRAYS}
                maps = {name: arrays[f"{group['key']}.{name}"] for name in _MAPS}
                groups.append(Group(**group, tiles=Tiles(**tiles, class_names=about["class_names"]), **maps))
            return cls(**about, mean_maps=arrays["mean_maps"], center=arrays["center"], groups=tuple(groups))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: expected heatmaps that lucidate explain wrote, received {error}") from None


_WORDS = ("method", "layer", "split", "images", "empty", "class_names", "verdict", "trust")
_MAPS = ("other", "first", "second", "first_peak", "second_peak")


def images_to_explain(predictions: Predictions) -> list[tuple[str, str, NDArray[np.int64], NDArray[np.int64]]]:
    """(key, title, rows of the table, other class of each) of the groups of images whose heatmaps are shown."""
    samples = (
        ("confident_wrong", "Surest mistakes", most_confident(predictions, correct=False)),
        ("hard_but_correct", "Right, but only just", hard_but_correct(predictions)),
    )
    groups = [(key, title, rows_of(predictions.ids, found.tiles.ids[:SHOWN])) for key, title, found in samples]
    confusions, names = top_confusions(predictions), predictions.class_names
    if confusions.errors:
        for true, said in (confusions.pair, confusions.pair[::-1]):
            taken = np.flatnonzero((predictions.labels == true) & (predictions.predicted == said))
            rows = ranked(predictions, taken, by=-predictions.confidence)[:SHOWN]
            groups.append((f"confused_{true}_{said}", f"{names[true]} taken for {names[said]}", rows))
    other = other_classes(predictions)
    return [(key, title, rows, other[rows]) for key, title, rows in groups if len(rows)]


def other_classes(predictions: Predictions) -> NDArray[np.int64]:
    """(N,) class each answer is set against: the true one of a wrong answer, the second likeliest of a right one."""
    ranking = np.argsort(-predictions.logits, axis=1, kind="stable")
    return np.where(predictions.correct, ranking[:, min(1, ranking.shape[1] - 1)], predictions.labels)


def group_of(
    predictions: Predictions,
    chosen: tuple[str, str, NDArray[np.int64], NDArray[np.int64]],
    *,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
) -> Group:
    """A group with its maps as they are, (T, h, w); they are scaled here, and their peaks kept."""
    key, title, rows, other = chosen
    peaks = [np.abs(maps).max(axis=(1, 2)) for maps in (first, second)]
    scaled = [maps / np.maximum(peak, 1e-30)[:, None, None] for maps, peak in zip((first, second), peaks, strict=True)]
    return Group(key, title, pick(predictions, rows), other, *scaled, *peaks)


# From almost nothing to much: dark violet over red to yellow, lighter at every step, so that it reads in gray as well.
RAMP = np.array([[24, 15, 62], [114, 31, 129], [205, 64, 91], [251, 135, 97], [252, 253, 191]], dtype=np.float64)


def heat_colors(heatmap: NDArray[Any]) -> NDArray[np.float64]:
    """(H, W, 3) RGB, 0 to 255, of a heatmap (H, W) in [0, 1]; what is outside counts as the nearer end."""
    at = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(heatmap, at, channel) for channel in RAMP.T], axis=-1)
