from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lucidate.core.recipe import TrainRecipe
from lucidate.training.optim import epochs_since_best, learning_rate, plateau_cuts


def rate(recipe: TrainRecipe, step: int, val_accuracy: tuple[float, ...] = ()) -> float:
    return learning_rate(recipe, step=step, steps_per_epoch=10, val_accuracy=val_accuracy)


def test_cosine_starts_at_the_top_after_warmup_and_ends_near_zero() -> None:
    recipe = TrainRecipe(epochs=5, lr=2.0, schedule="cosine", warmup_epochs=1)
    assert rate(recipe, 0) == pytest.approx(0.2)
    assert rate(recipe, 9) == pytest.approx(2.0)
    assert rate(recipe, 10) == pytest.approx(2.0)
    assert rate(recipe, 30) == pytest.approx(1.0)
    assert 0 < rate(recipe, 49) < 0.01


def test_cosine_is_torchs() -> None:
    recipe = TrainRecipe(epochs=3, lr=0.5, schedule="cosine")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    for step in range(30):
        assert rate(recipe, step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_linear_falls_to_zero_after_warmup() -> None:
    recipe = TrainRecipe(epochs=5, lr=2.0, schedule="linear", warmup_epochs=1)
    assert rate(recipe, 4) == pytest.approx(1.0)
    assert rate(recipe, 10) == pytest.approx(2.0)
    assert rate(recipe, 30) == pytest.approx(1.0)
    assert rate(recipe, 49) == pytest.approx(0.05)


def test_constant_is_constant_after_warmup() -> None:
    recipe = TrainRecipe(lr=0.3, schedule="constant", warmup_epochs=2)
    assert rate(recipe, 9) == pytest.approx(0.15)
    assert {rate(recipe, step) for step in range(20, 60)} == {0.3}


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(1, 5))
def test_plateau_is_torchs(values: list[float], patience: int) -> None:
    # torch cuts when more than its patience of bad epochs have passed: its patience is ours less one.
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=patience - 1, threshold=0, eps=0
    )
    for value in values:
        theirs.step(value)
    assert 0.5 ** plateau_cuts(values, patience) == optimizer.param_groups[0]["lr"]


def test_plateau_halves_the_rate_of_the_recipe() -> None:
    recipe = TrainRecipe(lr=1.0, schedule="plateau", plateau_patience=2, plateau_factor=0.1)
    assert rate(recipe, 0, (0.5, 0.4)) == 1.0
    assert rate(recipe, 0, (0.5, 0.4, 0.5)) == pytest.approx(0.1)


@pytest.mark.parametrize(("values", "expected"), [([0.1], 0), ([0.1, 0.2], 0), ([0.2, 0.1, 0.2], 2)])
def test_epochs_since_the_first_best(values: list[float], expected: int) -> None:
    assert epochs_since_best(values) == expected
