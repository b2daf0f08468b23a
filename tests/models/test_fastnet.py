from __future__ import annotations

import pytest
import torch

from lucidate.core.errors import RecipeError
from lucidate.core.recipe import ModelRecipe
from lucidate.models.build import build, check
from lucidate.models.fastnet import FastNet, Group
from lucidate.models.registry import Preparable


def test_the_first_layer_whitens_patches() -> None:
    torch.manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(200, 3, 20, 20), 3, 1)  # neighbors correlate, as in photos
    images = smooth * torch.tensor([1.0, 2.0, 0.5])[:, None, None]
    model = build(ModelRecipe(name="fastnet"), 10)
    assert isinstance(model, FastNet)
    model.prepare(images)
    outputs = model.whiten(images).permute(1, 0, 2, 3).flatten(1)
    covariance = outputs[:12].cov()
    torch.testing.assert_close(covariance - torch.diag(covariance.diag()), torch.zeros(12, 12), atol=2e-3, rtol=0)
    assert covariance.diag().min() > 0.8  # 1 but for the noise floor
    assert covariance.diag().max() < 1.01
    torch.testing.assert_close(outputs[12:], -outputs[:12])
    assert not model.whiten.weight.requires_grad


def test_new_filters_pass_their_channels_through() -> None:
    group = Group(8, 16, depth=2, momentum=0.4)
    features = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(group.conv1(features)[:, :8], features)


@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 24, 32)])
def test_one_family_of_any_depth(widths: tuple[int, ...]) -> None:
    model = build(ModelRecipe(name="fastnet", widths=list(widths)), 7)
    assert model(torch.randn(2, 3, 48, 48)).shape == (2, 7)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_depth_is_the_number_of_convolutions_and_three_are_skipped_over(depth: int) -> None:
    group = Group(4, 6, depth=depth, momentum=0.4).eval()
    assert sum(isinstance(module, torch.nn.Conv2d) for module in group.modules()) == depth
    features = torch.randn(2, 4, 8, 8)
    first = group.activation(group.norm1(group.pool(group.conv1(features))))
    for conv in group.convs:
        torch.nn.init.zeros_(conv.weight)
    expected = {1: first, 2: torch.zeros_like(first)}.get(depth, group.activation(first))
    torch.testing.assert_close(group(features), expected)


def test_its_input_layer_can_be_held_and_others_have_none() -> None:
    model = build(ModelRecipe(name="fastnet"), 10)
    for held in (True, False):
        assert isinstance(model, Preparable)
        model.freeze_input(held)
        assert model.whiten.bias.requires_grad is not held
    other = build(ModelRecipe(name="compact"), 10)
    assert not isinstance(other, Preparable)


def test_images_too_small_for_its_depth_are_refused_in_words() -> None:
    check(ModelRecipe(name="fastnet"), image_size=17)
    with pytest.raises(RecipeError, match=r"images of 1 pixels, received fastnet.*data\.image_size"):
        check(ModelRecipe(name="fastnet"), image_size=1)
    with pytest.raises(RecipeError, match="expected 1 or more"):
        build(ModelRecipe(name="fastnet", widths=[0, 8]), 10)
    with pytest.raises(RecipeError, match=r"model\.depth: expected 1 or more, received 0"):
        build(ModelRecipe(name="fastnet", depth=0), 10)
