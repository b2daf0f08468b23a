"""BatchNorm folded into convolutions: the same answers, no norm left where one followed a convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lucidate.core.recipe import ModelRecipe
from lucidate.models.build import build
from lucidate.models.folding import fold_norms


def lively(model: nn.Module) -> nn.Module:
    """With statistics and scales that differ from channel to channel, as after a training."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name, value in module.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.rand(value.shape) + 0.5)
                assert name
    return model.eval()


@pytest.mark.parametrize(
    ("recipe", "left"),
    [
        ({"name": "timm:resnet18"}, 0),
        ({"name": "timm:tf_efficientnet_lite0", "fit": "upsample", "size": 32}, 0),
        ({"name": "compact"}, None),
        ({"name": "fastnet"}, None),
    ],
)
def test_a_network_answers_and_embeds_as_before(recipe: dict[str, object], left: int | None) -> None:
    model = lively(build(ModelRecipe.model_validate(recipe), 3, image_size=32))
    images = torch.randn(2, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = fold_norms(model, images=images)
    others = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found(others), model(others), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.embed(others), model.embed(others), rtol=1e-3, atol=1e-4)  # type: ignore[operator]
    norms = [m for m in found.modules() if isinstance(m, nn.BatchNorm2d)]
    assert left is None or len(norms) == left
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Twice(nn.Module):
    """One convolution before one norm, whose output goes elsewhere as well: folded, it would answer otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        return (self.norm(features) + features).mean((2, 3))


class Shared(nn.Module):
    """A norm that two convolutions feed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.second(self.norm(self.first(images)))).mean((2, 3))


@pytest.mark.parametrize("kind", [Twice, Shared])
def test_what_cannot_be_folded_stays(kind: type[nn.Module]) -> None:
    model, images = lively(kind()), torch.randn(2, 3, 8, 8)
    found = fold_norms(model, images=images)
    assert any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
    with torch.no_grad():
        assert torch.equal(found(images), model(images))
