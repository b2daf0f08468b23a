"""What a copy of a model is compared with: images, and what the model says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lucidate.core.errors import PredictionsError, RunError, SourceError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import Predictions, RunCard, softmax
from lucidate.core.run import RunDir
from lucidate.data.batches import Batches
from lucidate.data.packed import packed_images
from lucidate.data.preprocess import Preprocess
from lucidate.data.run_data import open_data
from lucidate.data.sources.find import find_source, named
from lucidate.data.sources.source import NamedSource
from lucidate.data.splits import Splits
from lucidate.export.torch_program import with_views
from lucidate.models.checkpoint import load_model
from lucidate.models.tta import Views
from lucidate.predict.infer import batch_size, predict_logits

SYNTHETIC = 1_000  # images that are made up where a run's own cannot be had
SEED = 5
LARGEST_GRID = 9  # of the random colors that a smooth image is stretched from


@dataclass(frozen=True, eq=False)
class Shown:
    """Images that a copy is asked about. They are read from `store`, which may lie on disk, as they are needed.

    store: uint8 (N, S, S, 3). rows: (M,) int64 into it. split: "test" or "synthetic". why: of synthetic ones.
    known: (M, K) probabilities that the run holds already, float64; None where it holds none.
    """

    store: NDArray[np.uint8]
    rows: NDArray[np.int64]
    split: str
    known: NDArray[np.float64] | None = None
    why: str = ""


def images_to_show(run: RunDir, *, reporter: Reporter | None = None) -> Shown:
    """The run's whole test split, or 1,000 made-up images where it cannot be had on this machine; nothing is fetched.

    No label is looked at: this is no opening of the test split.
    """
    card = RunCard.load(run.card)
    known = _predicted(run)
    try:
        packed = packed_images(card)
        if packed is not None and known is not None and np.array_equal(packed.ids[known.index], known.ids):
            return Shown(packed.images, known.index, "test", softmax(known.logits))
        if packed is not None and run.splits.exists():
            return Shown(packed.images, Splits.load(run.splits).test, "test")
        _require_nearby(card)
        data = open_data(run, reporter=reporter)
        pack = data.pack
        if known is not None and np.array_equal(pack.ids[known.index], known.ids):
            return Shown(pack.images, known.index, "test", softmax(known.logits))
        return Shown(pack.images, data.splits.test, "test")
    except (SourceError, RunError, IndexError) as error:
        store = synthetic_images(card.data.image_size)
        return Shown(store, np.arange(len(store)), "synthetic", why=str(error))


def torch_probabilities(
    run: RunDir, shown: Shown, *, views: Views | None = None, reporter: Reporter | None = None
) -> NDArray[np.float64]:
    """What the run's model says by torch, on the processor, in float32: (M, K). views: in place of the recipe's."""
    card = RunCard.load(run.card)
    preprocess = Preprocess.from_dict(card.preprocess)
    device = torch.device("cpu")
    batches = Batches(
        shown.store, np.zeros(len(shown.store), np.int64), shown.rows, preprocess, batch_size(device), device
    )
    logits = predict_logits(
        with_views(load_model(run), views),
        batches,
        views=views or card.recipe.predict.views,
        mirror=card.data.flips,
        reporter=reporter or Silent(),
        task="asking the original",
    )
    return softmax(logits)


def synthetic_images(size: int, count: int = SYNTHETIC) -> NDArray[np.uint8]:
    """Images (count, size, size, 3), the same each time: noise, and smooth fields of colors, half of each."""
    generator = np.random.default_rng(SEED)
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    for row in range(0, count, 2):
        grid = generator.integers(2, min(LARGEST_GRID, size) + 1)
        colors = torch.from_numpy(generator.random((1, 3, grid, grid)) * 255)
        smooth = torch.nn.functional.interpolate(colors, (size, size), mode="bilinear", align_corners=True)
        images[row] = smooth[0].permute(1, 2, 0).round().byte().numpy()
    return images


def _predicted(run: RunDir) -> Predictions | None:
    path = run.predictions("test")
    try:
        return Predictions.load(path) if path.exists() else None
    except PredictionsError:
        return None


def _require_nearby(card: RunCard) -> None:
    """Raise SourceError where opening the run's images would begin with a download."""
    if card.data.path and Path(card.data.path).exists():
        return
    name = named(card.data.source)
    embedded = name is not None and name.fetch is NamedSource.fetch
    if find_source(card.data.source) is None and not embedded:
        raise SourceError(f"the run's images ({card.data.source}) are not on this machine")
