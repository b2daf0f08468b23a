from __future__ import annotations

import pytest
import torch

from lucidate.core.errors import RecipeError
from lucidate.core.recipe import ModelRecipe
from lucidate.models import build
from lucidate.models.fastnet import FastNet, Group
from lucidate.models.registry import check


def test_the_first_layer_whitens_patches() -> None:
    torch.manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(200, 3, 20, 20), 3, 1)  # neighbors correlate, as in photos
    images = smooth * torch.tensor([1.0, 2.0, 0.5])[:, None, None]
    model = build(ModelRecipe(name="fastnet"), 10)
    assert isinstance(model, FastNet)
    model.fit_input(images)
    outputs = model.whiten(images).permute(1, 0, 2, 3).flatten(1)
    covariance = outputs[:12].cov()
    torch.testing.assert_close(covariance - torch.diag(covariance.diag()), torch.zeros(12, 12), atol=2e-3, rtol=0)
    assert covariance.diag().min() > 0.8  # 1 but for the noise floor
    assert covariance.diag().max() < 1.01
    torch.testing.assert_close(outputs[12:], -outputs[:12])
    assert not model.whiten.weight.requires_grad


def test_new_filters_pass_their_channels_through() -> None:
    group = Group(8, 16, momentum=0.4)
    features = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(group.conv1(features)[:, :8], features)


@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 24, 32)])
def test_one_family_of_any_depth(widths: tuple[int, ...]) -> None:
    model = build(ModelRecipe(name="fastnet", widths=list(widths)), 7)
    assert model(torch.randn(2, 3, 48, 48)).shape == (2, 7)


def test_images_too_small_for_its_depth_are_refused_in_words() -> None:
    check(ModelRecipe(name="fastnet"), image_size=17)
    with pytest.raises(RecipeError, match=r"images of 8 pixels, received fastnet.*data\.image_size"):
        check(ModelRecipe(name="fastnet"), image_size=8)
    with pytest.raises(RecipeError, match="expected 1 or more"):
        build(ModelRecipe(name="fastnet", widths=[0, 8]), 10)
