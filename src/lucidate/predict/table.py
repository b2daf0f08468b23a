"""A model's answers on some rows of a store → the table of predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucidate.core.atomic import atomic_write
from lucidate.core.errors import LucidateError
from lucidate.core.records import Predictions, softmax
from lucidate.data.pack import Pack


def table_of(
    pack: Pack, rows: NDArray[np.int64], logits: NDArray[np.float32], *, split: str, model: str
) -> Predictions:
    """Answers on the pack's own labels. rows: (M,) into the pack. logits: (M, K), in the pack's order of classes."""
    return Predictions(
        ids=pack.ids[rows],
        index=rows,
        labels=pack.labels[rows],
        logits=logits,
        class_names=pack.class_names,
        dataset=pack.dataset,
        split=split,
        model=model,
    )


KINDS = (".parquet", ".csv")


def require_kind(path: Path) -> None:
    """Raise LucidateError for the name of a file that predictions are not written to."""
    if path.suffix.lower() not in KINDS:
        raise LucidateError(f"--out: expected a name that ends in {' or '.join(KINDS)}, received {path}")


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
