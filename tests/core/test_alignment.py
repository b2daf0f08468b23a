from __future__ import annotations

import numpy as np
import pytest

from lucidate.core.alignment import class_order, rows_of


def test_rows_are_found_by_id_and_missing_ones_are_said() -> None:
    ids = np.array(["c", "a", "b"])
    assert rows_of(ids, np.array(["a", "zzz", "c", "a"])).tolist() == [1, -1, 0, 1]
    assert rows_of(ids, np.array([], dtype=np.str_)).tolist() == []
    assert rows_of(np.array([], dtype=np.str_), np.array(["a"])).tolist() == [-1]


def test_a_class_order_moves_columns_and_labels() -> None:
    ours, theirs = ("cat", "dog", "eel"), ("eel", "cat", "dog")
    scores = np.array([[1, 2, 3]])  # of eel, cat, dog
    assert scores[:, class_order(ours, theirs)].tolist() == [[2, 3, 1]]
    assert class_order(theirs, ours)[np.array([0, 1])].tolist() == [2, 0]  # eel, cat
    with pytest.raises(ValueError, match="cat, dog, eel in any order, received cat, cat"):
        class_order(("cat", "cat"), ours)
