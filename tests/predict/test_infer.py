from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fakes import Listener, TwoLayers, colored_batches
from lucidate.models.predictor import tta_logits
from lucidate.predict.infer import predict_logits


class Corner(nn.Module):
    """Says what stands in the upper left pixel, channel by channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 0, 0]


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


def test_views_are_the_stated_means() -> None:
    images = torch.arange(2 * 3 * 4 * 4).float().reshape(2, 3, 4, 4)
    here, far = images[:, :, 0, 0], images[:, :, 0, 3]
    torch.testing.assert_close(tta_logits(Corner(), images, views="one", mirror=True), here)
    torch.testing.assert_close(tta_logits(Corner(), images, views="mirror", mirror=False), here)
    torch.testing.assert_close(tta_logits(Corner(), images, views="mirror", mirror=True), (here + far) / 2)
    # One pixel up and left, the corner holds what was reflected into it: the pixel at (1, 1); and the other way too.
    moved = (images[:, :, 1, 1] + images[:, :, 1, 1]) / 2
    shifted = tta_logits(Corner(), images, views="mirror-shift", mirror=False)
    torch.testing.assert_close(shifted, here / 2 + moved / 2)
