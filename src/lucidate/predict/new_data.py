"""A run's model on images that it was not made from: a whole source, or single files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lucidate.core.errors import LucidateError, PredictionsError
from lucidate.core.progress import Reporter
from lucidate.core.records import Predictions, RunCard, softmax
from lucidate.core.registry import choices
from lucidate.core.run import RunDir
from lucidate.data.decode import DecodeError, decode, read_encoded
from lucidate.data.pack import open_pack
from lucidate.data.preprocess import Preprocess
from lucidate.data.sources.source import reason
from lucidate.data.splits import require_name
from lucidate.predict.backends import Backend, backend_logits
from lucidate.predict.stopwatch import Stopwatch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Answer:
    """What a model says of one file: its likeliest classes, the likeliest first, and their probabilities."""

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict_source(
    run: RunDir,
    source: str,
    *,
    split: str,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
    backend: Backend | None = None,
    watch: Stopwatch | None = None,
) -> Predictions:
    """Predict a source's images: those it gives to `split`, or all where it gives none to it.

    backend: what answers in place of torch. watch: times the prediction itself, without opening the source.
    Its classes must be among the model's, by name, in any order and any selection. Raises PredictionsError otherwise.
    """
    require_name(split)
    card = RunCard.load(run.card)
    preprocess = Preprocess.from_dict(card.preprocess)
    pack = open_pack(source, image_size=preprocess.size, reporter=reporter)
    for name in pack.class_names:
        if name not in card.classes:
            raise PredictionsError(
                f"data: expected classes of the model, {choices(name, list(card.classes))}; {source} has {name!r}"
            )
    labels = np.array([card.classes.index(name) for name in pack.class_names], dtype=np.int64)[pack.labels]
    rows = np.flatnonzero(pack.given == split)
    rows, split = (rows, split) if len(rows) else (np.arange(len(pack)), "all")
    logits = _logits(run, card, pack.images, rows, device=device, reporter=reporter, backend=backend, watch=watch)
    return Predictions(
        ids=pack.ids[rows],
        index=rows,
        labels=labels[rows],
        logits=logits,
        class_names=card.classes,
        dataset=pack.dataset,
        split=split,
        model=card.recipe.model.name,
    )


def predict_files(
    run: RunDir,
    paths: list[Path],
    *,
    top: int = 3,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
    backend: Backend | None = None,
    temperature: float = 1.0,
) -> list[Answer]:
    """Predict image files of any size and common format. Raises LucidateError naming the first that cannot be read.

    backend: what answers in place of torch. temperature: logits are divided by it.
    """
    card = RunCard.load(run.card)
    preprocess = Preprocess.from_dict(card.preprocess)
    images = np.stack([read_image(path, preprocess.size) for path in paths])
    rows = np.arange(len(images))
    logits = _logits(run, card, images, rows, device=device, reporter=reporter, backend=backend)
    probabilities = softmax(logits / temperature)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        Answer(str(path), tuple(card.classes[k] for k in best), tuple(float(row[k]) for k in best))
        for path, best, row in zip(paths, order, probabilities, strict=True)
    ]


def _logits(
    run: RunDir,
    card: RunCard,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    device: torch.device | str,
    reporter: Reporter | None,
    backend: Backend | None = None,
    watch: Stopwatch | None = None,
) -> NDArray[np.float32]:
    watch = watch or Stopwatch()
    if backend is not None:
        with watch.running():
            return backend_logits(backend, images, rows, reporter=reporter)
    import torch  # graphs do without, and it takes a second

    from lucidate.data.batches import Batches
    from lucidate.models.checkpoint import load_model
    from lucidate.predict.infer import batch_size, predict_logits

    place, preprocess = torch.device(device), Preprocess.from_dict(card.preprocess)
    batches = Batches(images, np.zeros(len(images), np.int64), rows, preprocess, batch_size(place), place)
    model = load_model(run, device=place)
    with watch.running():
        return predict_logits(
            model, batches, views=card.recipe.predict.views, mirror=card.data.flips, reporter=reporter
        )


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """A file's pixels (size, size, 3), as a training would have packed them. Raises LucidateError."""
    try:
        return decode(read_encoded(path), size=size)
    except FileNotFoundError:
        raise LucidateError(f"{path}: expected an image file; there is none at this place") from None
    except OSError as error:
        words = reason(error, about=path)
        raise LucidateError(f"{path}: expected an image file that can be opened; the system says: {words}") from None
    except DecodeError as error:
        raise LucidateError(f"{path}: expected an image that can be read; this file cannot: {error}") from None
