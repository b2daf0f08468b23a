"""A run's heatmaps: of a whole split, streamed to disk, with what they add up to and whether to trust them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lucidate.analysis.findings import predictions_of
from lucidate.analysis.heatmaps import Heatmaps, group_of, images_to_explain, other_classes
from lucidate.core.atomic import atomic_path, atomic_write
from lucidate.core.errors import ExplainError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import Predictions, RunCard, jsonable
from lucidate.core.registry import choices
from lucidate.core.run import RunDir
from lucidate.data.batches import Batches
from lucidate.data.preprocess import Preprocess
from lucidate.data.splits import open_data
from lucidate.explain.heatmaps import heatmaps, layers_for, resized
from lucidate.explain.trust import BATCH, Explainer, Trust, measure_trust
from lucidate.models.checkpoint import load_model
from lucidate.predict.infer import with_progress

Target = Literal["predicted", "true", "difference"]
TARGETS: tuple[Target, ...] = get_args(Target)
TRUSTED = 256  # images that trust is measured on: intervals of some points


@dataclass(frozen=True, eq=False)
class Explanation:
    """The heatmaps of a split.

    layer: where they were taken, one name, or one a member of an ensemble. maps: (N, h, w) float16, memory-mapped, rows
    as in the split's predictions. mean_maps: (K, h, w), mean over images of a class of their maps, each scaled to a
    highest value of 1. center: (K,), share of a class's mean map inside the middle quarter of the area; a map that is
    even everywhere has .25. peaks: (N,) the highest absolute value of each map before it was scaled to 1; 0 of an empty
    one. empty: how many of those there are.
    """

    method: str
    target: str
    split: str
    layer: dict[str, str]
    images: int
    images_per_second: float
    empty: int
    maps: NDArray[np.float16]
    peaks: NDArray[np.float32]
    mean_maps: NDArray[np.float32]
    center: tuple[float, ...]
    trust: Trust | None


def explain_run(
    run: RunDir,
    *,
    method: str = "gradcam",
    target: Target = "predicted",
    split: str = "test",
    layer: str | None = None,
    trust: bool = True,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
) -> Explanation:
    """Heatmaps of every image that a run has predicted in a split, kept in its `explain/` folder.

    target: "predicted" or "true" class, or "difference": why the predicted rather than the true one (of right answers:
    rather than the second). Memory stays flat however many images there are. Raises ExplainError, RunError.
    """
    reporter = reporter or Silent()
    if target not in TARGETS:
        raise ExplainError(f"--target: expected {choices(target, list(TARGETS))}, received {target!r}")
    card = RunCard.load(run.card)
    predictions = predictions_of(run, split)
    pack = open_data(run, reporter=reporter).pack
    preprocess = Preprocess.from_dict(card.preprocess)
    model = load_model(run, device=device)
    layers = layers_for(model, preprocess.size, method=method, name=layer)
    explain = partial(heatmaps, method=method, layers=layers)
    batches = Batches(pack.images, pack.labels, predictions.index, preprocess, BATCH, torch.device(device))
    each = with_progress(
        (images for images, _ in batches.in_order()),
        len(predictions),
        task=f"explaining by {method}",
        reporter=reporter,
    )
    path = run.explained / f"{method}-{target}-{split}.npy"
    path.parent.mkdir(exist_ok=True)
    start = time.perf_counter()
    means, peaks = _write_maps(path, partial(explain, model), each, predictions, target)
    seconds = time.perf_counter() - start
    verdict = None
    if trust:
        reporter.say("measuring whether the heatmaps deserve trust")
        verdict = trust_of(model, batches, predictions, explain, method=method, seed=card.seed)
    found = Explanation(
        method=method,
        target=target,
        split=split,
        layer={member: chosen.name for member, chosen in layers.items()},
        images=len(predictions),
        images_per_second=len(predictions) / seconds,
        empty=int((peaks == 0).sum()),
        maps=np.load(path, mmap_mode="r"),
        peaks=peaks,
        mean_maps=means,
        center=tuple(center_share(mean) for mean in means),
        trust=verdict,
    )
    if target == "predicted":
        heatmaps_to_show(found, batches, predictions, partial(explain, model)).save(run.heatmaps(split))
    content = {key: value for key, value in vars(found).items() if key not in ("maps", "peaks")}
    atomic_write(path.with_suffix(".json"), json.dumps(jsonable(content), indent=1).encode())
    return found


def trust_of(
    model: nn.Module, batches: Batches, predictions: Predictions, explain: Explainer, *, method: str, seed: int
) -> Trust:
    """Trust, measured on up to 256 images that the model gets right, as many of each class as there are."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(predictions.correct))
    turn = pd.Series(order).groupby(predictions.labels[order]).cumcount()  # of an image within its class
    chosen = np.sort(order[np.argsort(turn.to_numpy(), kind="stable")[:TRUSTED]])
    picked = replace(batches, rows=batches.rows[chosen], batch_size=TRUSTED)
    images = torch.cat([images for images, _ in picked.in_order()])
    labels = torch.from_numpy(predictions.labels[chosen]).to(batches.device)

    def in_batches(other: nn.Module, shown: Tensor, asked: Tensor) -> Tensor:
        parts = zip(torch.split(shown, BATCH), torch.split(asked, BATCH), strict=True)
        return torch.cat([resized(explain(other, *part), shown.shape[-1]) for part in parts])

    return measure_trust(model, images, labels, in_batches, method=method, seed=seed)


def heatmaps_to_show(
    found: Explanation, batches: Batches, predictions: Predictions, explain: Callable[[Tensor, Tensor], Tensor]
) -> Heatmaps:
    """The heatmaps that gallery and report show: of single images, for the predicted class and for the other."""
    groups = []
    for chosen in images_to_explain(predictions):
        _, _, rows, other = chosen
        picked = replace(batches, rows=batches.rows[rows], batch_size=len(rows))
        ((images, _),) = picked.in_order()
        first, second = (
            explain(images, torch.from_numpy(classes).to(images.device)).cpu().numpy()
            for classes in (predictions.predicted[rows], other)
        )
        groups.append(group_of(predictions, chosen, first=first, second=second))
    return Heatmaps(
        method=found.method,
        layer=", ".join(dict.fromkeys(found.layer.values())),
        split=found.split,
        images=found.images,
        empty=found.empty,
        class_names=predictions.class_names,
        verdict=found.trust.verdict if found.trust else "not measured",
        trust=jsonable(found.trust) if found.trust else {},
        mean_maps=found.mean_maps,
        center=np.array(found.center),
        groups=tuple(groups),
    )


def center_share(mean: NDArray[np.float32]) -> float:
    """Share of a map (h, w) that lies in the middle quarter of its area; .25 of an even one, and of an empty one."""
    positive = np.maximum(mean, 0).astype(np.float64)
    weights = np.multiply.outer(*(_middle(size) for size in positive.shape))
    total = positive.sum()
    return float((positive * weights).sum() / total) if total > 0 else 0.25


def _middle(size: int) -> NDArray[np.float64]:
    """(size,) how much of each cell lies in the middle half of an axis, 0 to 1."""
    edges = np.linspace(0, 1, size + 1)
    return np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None) * size


def _write_maps(
    path: Path, explain: Callable[..., Tensor], batches: Iterable[Tensor], predictions: Predictions, target: Target
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Write every map to `path`, a batch at a time; returns the mean map of each class, and the maps' peaks."""
    asked = predictions.labels if target == "true" else predictions.predicted
    against = other_classes(predictions) if target == "difference" else None
    done, total, classes = 0, len(predictions), predictions.num_classes
    peaks, sums = np.zeros(total, np.float32), np.zeros(0)
    with atomic_path(path) as temporary:
        store: np.memmap[Any, np.dtype[np.float16]] | None = None
        for images in batches:
            rows = slice(done, done + len(images))
            first = torch.from_numpy(asked[rows]).to(images.device)
            second = None if against is None else torch.from_numpy(against[rows]).to(images.device)
            maps = explain(images, first, against=second).cpu().numpy()
            peaks[rows] = highest = np.abs(maps).max(axis=(1, 2))
            # Scaled to a highest value of 1: float16 would lose small maps, and no image is to drown the mean.
            scaled = maps / np.maximum(highest, np.finfo(np.float32).tiny)[:, None, None]
            if store is None:
                shape = maps.shape[1:]
                store = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=(total, *shape))
                sums = np.zeros((classes, *shape))
            store[rows] = scaled
            np.add.at(sums, asked[rows], scaled)
            done += len(images)
        if store is None:
            raise ExplainError("explain: expected predictions of at least one image, received none")
        store.flush()
    with atomic_path(path.with_suffix(".peaks.npy")) as temporary, temporary.open("wb") as file:
        np.save(file, peaks)
    numbers = np.bincount(asked, minlength=classes)
    return (sums / np.maximum(numbers, 1)[:, None, None]).astype(np.float32), peaks
