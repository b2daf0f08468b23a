"""Tables of one thing in one order: rows are joined by the ids of images, classes by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lucidate.core.errors import PredictionsError
from lucidate.core.records import Predictions


def rows_of(ids: NDArray[np.str_], wanted: NDArray[np.str_]) -> NDArray[np.int64]:
    """(M,) row of each of the `wanted` ids (M,) among `ids` (N,), which are unique; -1 where there is none."""
    if not len(ids):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    rows = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(ids[rows] == wanted, rows, -1)


def class_order(names: Sequence[str], among: Sequence[str]) -> NDArray[np.int64]:
    """(K,) position of each of the names in another order of the same classes. Raises ValueError where names differ.

    Of `ours` among `theirs` it orders columns: `scores[:, order]`; of `theirs` among `ours` labels: `order[labels]`.
    """
    if sorted(names) != sorted(among):
        raise ValueError(f"classes: expected the names {', '.join(among)} in any order, received {', '.join(names)}")
    position = {name: number for number, name in enumerate(among)}
    return np.array([position[name] for name in names], dtype=np.int64)


def align(members: Sequence[Predictions], *, names: Sequence[str]) -> list[Predictions]:
    """The members' predictions of one split, in the first one's order of images and classes.

    Raises PredictionsError where the classes, the images or their labels differ. names: what errors call the members.
    """
    first = members[0]
    aligned = [first]
    for name, member in zip(names[1:], members[1:], strict=True):
        both = f"{names[0]} and {name}"
        if sorted(member.class_names) != sorted(first.class_names):
            odd = sorted(set(member.class_names) ^ set(first.class_names))
            raise PredictionsError(
                f"ensemble: expected members of the same classes, received {both}, which differ in {', '.join(odd[:3])}"
            )
        rows = rows_of(member.ids, first.ids)
        if len(member) != len(first) or (rows < 0).any():
            raise PredictionsError(
                f"ensemble: expected members that were divided alike, received {both}, whose {first.split} images "
                "differ; train them with one seed, data.split, data.val_fraction and data.train_size"
            )
        labels = class_order(member.class_names, first.class_names)[member.labels[rows]]
        if not np.array_equal(labels, first.labels):
            raise PredictionsError(f"ensemble: expected members of the same labels, received {both}")
        logits = member.logits[rows][:, class_order(first.class_names, member.class_names)]
        aligned.append(replace(first, logits=logits, model=member.model))
    return aligned
