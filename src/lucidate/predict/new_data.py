"""A run's model on images that it was not made from: a whole source, or single files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lucidate.core.atomic import atomic_write
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
from lucidate.predict.backends import open_predictor
from lucidate.predict.infer import Stopwatch, predict_rows, table_of

if TYPE_CHECKING:
    import torch

    from lucidate.models.predictor import Predictor

KINDS = (".parquet", ".csv")


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
    predictor: Predictor | None = None,
    watch: Stopwatch | None = None,
) -> Predictions:
    """Predict a source's images: those it gives to `split`, or all where it gives none to it.

    predictor: what answers in place of torch. watch: times the prediction itself, without opening the source.
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
    predictor = predictor or open_predictor("torch", run, device=device)
    logits = predict_rows(predictor, pack.images, rows, reporter=reporter, watch=watch)
    named = replace(pack, labels=labels, class_names=card.classes)
    return table_of(named, rows, logits, split=split, model=card.recipe.model.name)


def predict_files(
    run: RunDir,
    paths: list[Path],
    *,
    top: int = 3,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
    predictor: Predictor | None = None,
    temperature: float = 1.0,
) -> list[Answer]:
    """Predict image files of any size and common format. Raises LucidateError naming the first that cannot be read.

    predictor: what answers in place of torch. temperature: logits are divided by it.
    """
    card = RunCard.load(run.card)
    preprocess = Preprocess.from_dict(card.preprocess)
    images = np.stack([read_image(path, preprocess.size) for path in paths])
    predictor = predictor or open_predictor("torch", run, device=device)
    logits = predict_rows(predictor, images, np.arange(len(images)), reporter=reporter)
    probabilities = softmax(logits / temperature)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        Answer(str(path), tuple(card.classes[k] for k in best), tuple(float(row[k]) for k in best))
        for path, best, row in zip(paths, order, probabilities, strict=True)
    ]


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


def require_kind(path: Path, kinds: tuple[str, ...] = KINDS) -> None:
    """Raise LucidateError for a file whose name ends in none of `kinds`, by default those of predictions."""
    if path.suffix.lower() not in kinds:
        raise LucidateError(f"--out: expected a name that ends in {' or '.join(kinds)}, received {path}")


def save_table(predictions: Predictions, path: Path, *, temperature: float = 1.0) -> None:
    """Write predictions as the name asks: Parquet for programs, with logits, or CSV for people, with probabilities.

    temperature: the logits are divided by it before they become the CSV's probabilities.
    """
    require_kind(path)
    if path.suffix.lower() == ".parquet":
        predictions.save(path)
        return
    import pandas as pd  # takes a moment, which Parquet need not wait

    from lucidate.core.text import csv_of

    probabilities = softmax(predictions.logits / temperature)
    names = np.array(predictions.class_names)
    columns = {
        "id": predictions.ids,
        "index": predictions.index,
        "label": names[predictions.labels],
        "predicted": names[predictions.predicted],
        "correct": predictions.correct,
        "confidence": probabilities.max(1),
    }
    table = pd.DataFrame(columns).join(pd.DataFrame(probabilities, columns=[f"p_{name}" for name in names]))
    atomic_write(path, csv_of(table, float_format="%.6g").encode())
