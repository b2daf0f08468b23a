"""A model's answers on some rows of a store → the table of predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lucidate.core.records import Predictions
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
