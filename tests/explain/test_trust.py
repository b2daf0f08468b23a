"""Trust is measured, not assumed: known maps on known models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from lucidate.explain.trust import (
    CHANCE,
    centered,
    curve,
    empty_maps,
    four_classes,
    measure_trust,
    point,
    rank_correlations,
    share_of,
)


class Corner(nn.Module):
    """Reads nothing but the contrast of each color in the top left quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(4 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[-1] // 2
        return images[:, :, :half, :half].square().mean((2, 3)) @ self.weight.T


def gradient(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    model(images)[torch.arange(len(images)), target].sum().backward()
    assert images.grad is not None
    return images.grad.abs().sum(1)


def noise(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:  # noqa: ARG001
    return torch.rand(len(images), *images.shape[2:], generator=torch.Generator().manual_seed(3))


def nothing(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:  # noqa: ARG001
    return torch.full((len(images), *images.shape[2:]), 0.7)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(240, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_random_maps_point_no_better_than_chance(images: Tensor) -> None:
    model = Corner()
    labels = torch.arange(240) % 4
    share = share_of(point(model, images, labels, noise, generator=torch.Generator().manual_seed(2)))
    assert share.count == 60
    assert share.low <= CHANCE <= share.high
    trust = measure_trust(model, images, labels, noise, method="noise")
    assert trust.verdict.startswith("do not believe")


def test_a_model_that_reads_one_corner_is_found_to_look_there(images: Tensor) -> None:
    model = Corner()
    labels = model(images).argmax(1).detach()
    maps = gradient(model, images, labels)
    assert maps[:, :8, :8].sum() > 0
    assert maps[:, 8:].sum() == maps[:, :, 8:].sum() == 0
    own = curve(model, images, labels, maps, insert=False)
    middle = curve(model, images, labels, centered(16).expand_as(maps), insert=False)
    assert own.mean() < middle.mean() - 0.02


def test_constant_maps_get_the_verdict_empty(images: Tensor) -> None:
    labels = torch.arange(240) % 4
    trust = measure_trust(Corner(), images, labels, nothing, method="nothing")
    assert trust.empty == 1
    assert trust.verdict.startswith("empty")
    assert empty_maps(torch.zeros(2, 4, 4)).all()
    assert not empty_maps(torch.rand(2, 4, 4)).any()
    assert empty_maps(torch.stack([torch.rand(4, 4), 1e-9 * torch.rand(4, 4)])).tolist() == [False, True]


def test_rank_correlation_is_spearmans() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random((5, 6, 6), np.float32), generator.random((5, 6, 6), np.float32)
    second[0] = first[0] ** 3
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlations(first, second), expected, atol=1e-12)
    assert rank_correlations(first, second)[0] == pytest.approx(1)
    assert rank_correlations(np.zeros((1, 3, 3), np.float32), first[:1, :3, :3])[0] == 0


def test_mosaics_show_four_classes_and_no_image_twice() -> None:
    labels = torch.randint(0, 6, (100,), generator=torch.Generator().manual_seed(0))
    groups = four_classes(labels, generator=torch.Generator().manual_seed(1))
    assert all(len(set(labels[group].tolist())) == 4 for group in groups)
    assert len(set(groups.flatten().tolist())) == groups.numel()
    assert four_classes(labels.clamp(max=2), generator=torch.Generator()).shape == (0, 4)


def test_taking_pixels_away_and_putting_them_back_are_two_ends_of_one_road(images: Tensor) -> None:
    model = Corner()
    labels = model(images).argmax(1).detach()
    ranking = torch.rand(240, 16, 16, generator=torch.Generator().manual_seed(5))
    away = curve(model, images, labels, ranking, insert=False)
    back = curve(model, images, labels, -ranking, insert=True)
    assert away.shape == back.shape == (240,)
    assert (away > 0).all()
    assert (away <= 1).all()
