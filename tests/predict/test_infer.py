from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fakes import Listener, TwoLayers, colored_batches
from lucidate.predict.infer import predict_logits


def test_logits_come_in_order_whatever_the_batch_size_and_the_mode_is_given_back() -> None:
    torch.manual_seed(0)
    model, listener = TwoLayers().train(), Listener()
    whole = predict_logits(model, colored_batches(range(50), batch_size=50))
    parts = predict_logits(model, colored_batches(range(50), batch_size=7), reporter=listener, task="asking")
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    assert parts.dtype == np.float32
    assert model.training
    assert listener.advanced[-1] == ("asking", 50, 50)


def test_the_mode_is_given_back_also_when_the_model_fails() -> None:
    class Failing(nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    model = Failing().train()
    with pytest.raises(ValueError, match="no"):
        predict_logits(model, colored_batches(range(5)))
    assert model.training
