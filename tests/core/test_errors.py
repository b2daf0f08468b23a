"""What a library raises becomes an error of ours, in one line; what is ours, or no error, passes."""

from __future__ import annotations

import pytest

from lucidate.core.errors import RunError, WeightsError, raised_as


def test_what_a_library_raises_becomes_ours_in_one_line() -> None:
    with pytest.raises(WeightsError) as caught, raised_as(WeightsError, "weights: expected numbers", limit=9):
        raise ValueError("none\nat all, none whatsoever")
    assert str(caught.value) == "weights: expected numbers: none at a"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [RunError("ours"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_ours_or_no_error_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, raised_as(WeightsError, "weights: expected numbers"):
        raise error
    assert caught.value is error


def test_without_an_error_nothing_happens() -> None:
    with raised_as(WeightsError, "weights: expected numbers"):
        found = 1
    assert found == 1
