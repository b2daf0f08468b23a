"""Against torchvision's own functions, at every magnitude of the wide space."""

from __future__ import annotations

from collections.abc import Callable
from math import atan, degrees

import numpy as np
import pytest
import torch
from torch import Tensor

from lucidate.data.augment import Draws
from lucidate.data.batches import generator_for
from lucidate.data.trivial_augment import BINS, OPERATIONS, draw_operations, transform, trivial_augment
from lucidate.models.timm import declare_missing_operators

declare_missing_operators()
from torchvision.transforms.v2 import functional as peer  # noqa: E402

STEP = 1 / 255
HEIGHT, WIDTH = 32, 28


def random_images(count: int) -> Tensor:
    """(B, 3, H, W) uint8, each channel in a range of its own; the first image's red is of one value."""
    generator = np.random.default_rng(0)
    low = generator.integers(0, 120, (count, 3, 1, 1))
    images = generator.integers(low, generator.integers(low + 40, 256), (count, 3, HEIGHT, WIDTH))
    images[0, 0] = 77
    return torch.from_numpy(images.astype(np.uint8))


def shear(image: Tensor, x: float, y: float) -> Tensor:
    angles = [degrees(atan(0.99 * x)), degrees(atan(0.99 * y))]
    return peer.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=angles, center=[0, 0])


def shift(image: Tensor, x: float, y: float) -> Tensor:
    pixels = [round(WIDTH / 7 * x), round(HEIGHT / 7 * y)]
    return peer.affine(image, angle=0.0, translate=pixels, scale=1.0, shear=[0.0, 0.0])


PEERS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, level: shear(image, level, 0.0),
    "shear_y": lambda image, level: shear(image, 0.0, level),
    "translate_x": lambda image, level: shift(image, level, 0.0),
    "translate_y": lambda image, level: shift(image, 0.0, level),
    "rotate": lambda image, level: peer.rotate(image, 135.0 * level),
    "brightness": lambda image, level: peer.adjust_brightness(image, 1 + 0.99 * level),
    "color": lambda image, level: peer.adjust_saturation(image, 1 + 0.99 * level),
    "contrast": lambda image, level: peer.adjust_contrast(image, 1 + 0.99 * level),
    "sharpness": lambda image, level: peer.adjust_sharpness(image, 1 + 0.99 * level),
    "posterize": lambda image, level: peer.posterize(image, 8 - round(6 * abs(level))),
    "solarize": lambda image, level: peer.solarize(image, 255 * (1 - abs(level))),
    "auto_contrast": lambda image, _: peer.autocontrast(image),
    "equalize": lambda image, _: peer.equalize(image),
}
GEOMETRIC = ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"]
BLENDS = ["brightness", "color", "contrast", "sharpness"]


def every_level() -> Tensor:
    magnitudes = torch.arange(BINS) / (BINS - 1)
    return torch.cat([magnitudes, -magnitudes])


def changed(images: Tensor, name: str) -> Tensor:
    """uint8 images, each at one of all levels, in [0, 1]."""
    levels = every_level()
    operations = torch.full(levels.shape, OPERATIONS.index(name))
    return transform((images / 255).contiguous(memory_format=torch.channels_last), operations, levels)


def expected(images: Tensor, name: str) -> Tensor:
    return torch.stack([PEERS[name](image, level) for image, level in zip(images, every_level().tolist(), strict=True)])


def test_the_operations_are_torchvisions() -> None:
    assert tuple(PEERS) == OPERATIONS


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions_on_whole_numbers(name: str) -> None:
    images = random_images(2 * BINS)
    ours, theirs = changed(images, name), expected(images, name) / 255
    # torchvision cuts the grays or the blur, and then the result, to whole steps; ours keeps fractions.
    steps = {**dict.fromkeys(BLENDS, 2.0), "auto_contrast": 1.0}.get(name, 0.0)
    differs = (ours - theirs).abs() > steps * STEP + 1e-5
    # Where a place falls between two pixels, rounding decides which of them is nearest.
    assert float(differs.float().mean()) <= (1e-4 if name in GEOMETRIC else 0)


@pytest.mark.parametrize("name", [*BLENDS, "auto_contrast"])
def test_what_is_rounded_there_agrees_on_fractions(name: str) -> None:
    images = random_images(2 * BINS)
    torch.testing.assert_close(changed(images, name), expected(images / 255, name), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_results_stay_in_range_and_the_given_images_as_they_were(name: str) -> None:
    images = random_images(2 * BINS)
    before = images.clone()
    result = changed(images, name)
    assert result.shape == images.shape
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(images, before)
    if name != "identity":
        assert not torch.allclose(result, images / 255, atol=STEP)


@pytest.mark.parametrize("side", [8, 32, 224])
def test_translation_is_at_most_a_seventh_of_the_side(side: int) -> None:
    operations = torch.tensor([OPERATIONS.index("translate_x"), OPERATIONS.index("translate_y")])
    result = transform(torch.ones(2, 3, side, side), operations, torch.ones(2))
    black = result[:, 0] == 0
    assert int(black[0].all(0).sum()) == int(black[1].all(1).sum()) == round(side / 7)


def test_a_mixed_batch_is_what_its_images_are_alone() -> None:
    images = random_images(100) / 255
    operations, levels = draw_operations(Draws(generator_for(4), 100))
    together = transform(images, operations, levels)
    alone = torch.cat([transform(images[[i]], operations[[i]], levels[[i]]) for i in range(100)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_operations_magnitudes_and_signs_are_equally_likely() -> None:
    count = 14 * 31 * 100
    operations, levels = draw_operations(Draws(generator_for(0), count))
    assert torch.equal(levels.abs().unique(), (torch.arange(BINS) / (BINS - 1)))
    for chosen, kinds in ((operations, 14), ((levels.abs() * 30).round().long(), 31), ((levels > 0).long(), 2)):
        counts = torch.bincount(chosen)
        assert len(counts) == kinds
        assert (counts / count * kinds - 1).abs().max() < (0.08 if kinds > 2 else 0.05)
    together = torch.stack([operations.double(), levels.double(), (levels > 0).double()])
    assert torch.corrcoef(together)[0, 1:].abs().max() < 0.02


def test_the_result_is_a_function_of_the_draws() -> None:
    images = random_images(64) / 255
    first, again, other = (trivial_augment(images, Draws(generator_for(seed), 64)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    half = trivial_augment(images[20:50], Draws(generator_for(7), 64, slice(20, 50)))
    torch.testing.assert_close(half, first[20:50], atol=1e-6, rtol=0)
    assert trivial_augment(images[:0], Draws(generator_for(7), 64, slice(0, 0))).shape == (0, 3, HEIGHT, WIDTH)
