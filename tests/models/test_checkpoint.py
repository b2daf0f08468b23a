from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fakes import TwoLayers
from lucidate.core.errors import RunError
from lucidate.core.recipe import ModelRecipe
from lucidate.models.build import build
from lucidate.models.checkpoint import load_weights, save_weights


def test_weights_come_back_bit_for_bit_and_the_same_values_are_the_same_bytes(tmp_path: Path) -> None:
    model, other = (build(ModelRecipe(), 10) for _ in range(2))
    save_weights(model, tmp_path / "a")
    load_weights(other, tmp_path / "a")
    save_weights(other, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_damaged_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    save_weights(TwoLayers(), tmp_path / "two")
    with pytest.raises(RunError, match="of this architecture, received others"):
        load_weights(build(ModelRecipe(), 10), tmp_path / "two")
    (tmp_path / "cut").write_bytes((tmp_path / "two").read_bytes()[:-5])
    with pytest.raises(RunError, match="expected weights in safetensors, received a file that cannot be read"):
        load_weights(TwoLayers(), tmp_path / "cut")
    with pytest.raises(RunError, match="expected weights in safetensors; there is no such file"):
        load_weights(TwoLayers(), tmp_path / "missing")
