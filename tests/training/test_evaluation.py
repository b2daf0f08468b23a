from __future__ import annotations

import pytest
import torch
from torch import nn

from fakes import Listener, TwoLayers, colored_batches
from lucidate.core.progress import Silent
from lucidate.core.recipe import ModelRecipe
from lucidate.models.build import build
from lucidate.training.evaluation import outputs, train_head


def test_logits_come_in_order_whatever_the_batch_size_and_the_mode_is_given_back() -> None:
    torch.manual_seed(0)
    model, listener = TwoLayers().train(), Listener()
    whole = outputs(model, colored_batches(range(50), batch_size=50), model)
    parts = outputs(model, colored_batches(range(50), batch_size=7), model, reporter=listener, task="asking")
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    assert parts.dtype == torch.float32
    assert model.training
    assert listener.advanced[-1] == ("asking", 50, 50)


def test_the_mode_is_given_back_also_when_the_model_fails() -> None:
    class Failing(nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    model = Failing().train()
    with pytest.raises(ValueError, match="no"):
        outputs(model, colored_batches(range(5)), model)
    assert model.training


def test_the_probe_fits_the_head_alone_and_gives_the_mode_back() -> None:
    torch.manual_seed(0)
    model = build(ModelRecipe(name="timm:resnet18"), 3, image_size=8).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = colored_batches(range(48), batch_size=8)
    accuracy = train_head(model, batches, steps=50, precision="float32", reporter=Silent())
    assert accuracy > 0.95  # the colors are plain, even to untrained filters
    assert model.training
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["net.fc.weight", "net.fc.bias"]
    assert all(p.grad is None for p in model.parameters())
