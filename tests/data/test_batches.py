from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from fakes import colored_batches, colored_images
from lucidate.core.errors import RunError
from lucidate.core.recipe import AugmentRecipe
from lucidate.data.augment import Draws, augment, cut_out, flip_horizontally, mix_up, transform_affinely, translate
from lucidate.data.batches import derived_seed, generator_for
from lucidate.data.preprocess import Preprocess, fit_preprocess


def draws_of(seed: int, count: int) -> Draws:
    return Draws(generator_for(seed), count)


RECIPE = AugmentRecipe(rotation=0.1, zoom=0.1, shift=0.1)


def gradient(batch: int = 4, side: int = 16) -> torch.Tensor:
    """(B, 3, S, S): column, row and image number as values."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image = torch.stack([columns, rows, torch.zeros(side, side)]).float()
    return image.repeat(batch, 1, 1, 1) + torch.arange(batch).float()[:, None, None, None] * 100


def test_normalize_is_the_textbook_formula_in_channels_last() -> None:
    images, _ = colored_images()
    preprocess = Preprocess(8, (0.1, 0.5, 0.9), (0.2, 0.25, 0.3))
    ours = preprocess.normalize(torch.from_numpy(images))
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    expected = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_statistics_are_those_of_the_training_rows() -> None:
    images, _ = colored_images(300)
    rows = np.arange(50, 250)
    preprocess = fit_preprocess(images, rows)
    np.testing.assert_allclose(preprocess.mean, (images[rows] / 255).mean(axis=(0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(preprocess.std, (images[rows] / 255).std(axis=(0, 1, 2)), atol=1e-6)
    assert Preprocess.from_dict(preprocess.as_dict()) == preprocess
    assert min(fit_preprocess(np.zeros_like(images), rows).std) > 0
    with pytest.raises(RunError, match="expected size, mean, std"):
        Preprocess.from_dict({"size": 8, "mean": [0, 0, 0], "std": [1, 1, 0], "interpolation": "bicubic"})


def test_an_epoch_is_a_function_of_seed_and_epoch_alone() -> None:
    batches = colored_batches(range(90))
    epochs = [
        torch.cat([batch.images for _, batch in batches.shuffled(seed, epoch, recipe=RECIPE, flips=True)])
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[3])


def test_an_epoch_holds_each_row_once_and_never_a_single_image() -> None:
    batches = colored_batches(range(33, 82))  # 49 = 3 × 16 + 1
    assert batches.training_steps() == 3
    sizes = [len(batch.labels) for _, batch in batches.shuffled(0, 0, recipe=AugmentRecipe(), flips=False)]
    assert sizes == [16, 16, 16]
    assert sum(len(labels) for _, labels in batches.in_order()) == 49
    whole = colored_batches(range(48))
    images = torch.cat(
        [batch.images for _, batch in whole.shuffled(0, 3, recipe=AugmentRecipe(flip=False), flips=True)]
    )
    ordered = torch.cat([images for images, _ in whole.in_order()])
    assert torch.equal(images.flatten(1).sum(1).sort().values, ordered.flatten(1).sum(1).sort().values)


def test_seeds_of_neighboring_places_differ() -> None:
    seeds = {derived_seed(seed, epoch, step) for seed in range(5) for epoch in range(5) for step in range(5)}
    assert len(seeds) == 125
    assert derived_seed(1, 2) == derived_seed(1, 2)


def test_no_range_changes_nothing_and_flips_follow_source_and_recipe() -> None:
    images = gradient(64)
    unchanged = transform_affinely(images, draws_of(0, len(images)))
    torch.testing.assert_close(unchanged, images, atol=1e-3, rtol=0)
    for flip, flips, expected in (
        ("auto", False, False),
        ("auto", True, True),
        (False, True, False),
        (True, False, True),
    ):
        result = augment(images, draws_of(0, len(images)), recipe=AugmentRecipe(flip=flip), flips=flips)
        assert torch.equal(result, images) is not expected


def test_flips_mirror_about_half_of_the_images() -> None:
    images = gradient(1000)
    flipped = flip_horizontally(images, draws_of(3, len(images)))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    untouched = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ untouched).all()
    assert 420 < int(mirrored.sum()) < 580


def test_translation_is_a_crop_of_the_reflected_image() -> None:
    images = torch.rand(50, 3, 12, 10)
    moved = translate(images, draws_of(4, len(images)), pixels=2)
    padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    crops = torch.stack([padded[:, :, y : y + 12, x : x + 10] for y in range(5) for x in range(5)])
    matches = (crops == moved).flatten(2).all(2)
    assert (matches.sum(0) == 1).all()  # each image is exactly one of the 25
    assert matches.any(1).sum() > 15  # and most of the 25 occur


def test_alternating_flips_show_each_image_both_ways_in_two_epochs() -> None:
    batches, recipe = colored_batches(range(90)), AugmentRecipe(flip="alternating")
    ordered = torch.cat([images for images, _ in batches.in_order()])
    seen: dict[int, set[bool]] = {row: set() for row in range(90)}
    for epoch in (3, 4):
        shown = torch.cat([batch.images for _, batch in batches.shuffled(0, epoch, recipe=recipe, flips=True)])
        for image in shown:
            plain = (ordered == image).flatten(1).all(1).nonzero()
            mirrored = (ordered == image.flip(2)).flatten(1).all(1).nonzero()
            row, side = (plain, False) if len(plain) else (mirrored, True)
            seen[int(row)].add(side)
    assert all(sides == {False, True} for sides in seen.values())
    unflipped = torch.cat([batch.images for _, batch in batches.shuffled(0, 3, recipe=recipe, flips=False)])
    assert all((ordered == image).flatten(1).all(1).any() for image in unflipped)


def test_rotation_zoom_and_shift_move_the_center_as_asked() -> None:
    images = gradient(500)
    center = images[:, :2, 7:9, 7:9].mean((2, 3)) - images[:, 2:, 0, 0]
    turned = transform_affinely(images, draws_of(1, len(images)), rotation=0.08, zoom=0.08)
    moved = turned[:, :2, 7:9, 7:9].mean((2, 3)) - images[:, 2:, 0, 0]
    torch.testing.assert_close(moved, center, atol=1e-2, rtol=0)  # rotation and zoom keep the center
    assert not torch.allclose(turned, images, atol=0.5)
    shifted = transform_affinely(images, draws_of(1, len(images)), shift=0.1)
    offset = shifted[:, :2, 7:9, 7:9].mean((2, 3)) - images[:, 2:, 0, 0] - center
    assert 1.4 < offset.abs().max() <= 1.61  # a tenth of 16 pixels
    assert offset.mean().abs() < 0.1


def test_rotation_is_by_the_stated_part_of_a_turn() -> None:
    images = gradient(400)
    turned = transform_affinely(images, draws_of(2, len(images)), rotation=0.25)
    along = (turned[:, 0, 8, 9] - turned[:, 0, 8, 7]) / 2  # cosine of the angle: the column's slope along a row
    angles = torch.arccos(along.clamp(-1, 1)).rad2deg()
    assert 85 < angles.max() <= 90.5
    assert angles.min() < 5


def test_augmentation_never_leaves_the_range_of_the_image() -> None:
    images = torch.rand(64, 3, 12, 12)
    result = augment(images, draws_of(0, len(images)), recipe=RECIPE, flips=True)
    assert result.shape == images.shape
    assert result.min() >= images.min() - 1e-6
    assert result.max() <= images.max() + 1e-6


def test_cutout_hides_one_whole_square_of_each_image() -> None:
    images = torch.ones(200, 3, 16, 12)
    result = cut_out(images, draws_of(5, 200), pixels=5)
    hidden = result == 0
    assert torch.equal(hidden.sum((1, 2, 3)), torch.full((200,), 3 * 25))
    rows, columns = hidden[:, 0].any(2), hidden[:, 0].any(1)
    assert torch.equal(rows.sum(1), torch.full((200,), 5))
    assert torch.equal(hidden[:, 0], rows[:, :, None] & columns[:, None, :])  # a square, the same in each channel
    assert rows.any(0).all()  # and it gets everywhere
    assert columns.any(0).all()
    assert (cut_out(images, draws_of(5, 200), pixels=99) == 0).all()


@pytest.mark.parametrize("count", [4, 5])
def test_mixing_blends_neighbours(count: int) -> None:
    images = torch.arange(count).float()[:, None, None, None].expand(count, 3, 8, 8)
    mixed = mix_up(images, 0.7)[:, 0, 0, 0]
    expected = [0.7 * 0 + 0.3 * 1, 0.7 * 1 + 0.3 * 0, 0.7 * 2 + 0.3 * 3, 0.7 * 3 + 0.3 * 2, 4.0]
    torch.testing.assert_close(mixed, torch.tensor(expected[:count]))


def test_the_share_of_a_mix_is_drawn_anew_in_each_step() -> None:
    batches = colored_batches(range(48))
    recipe = AugmentRecipe(mixup=0.4)
    shares = [[b.share for _, b in batches.shuffled(0, epoch, recipe=recipe, flips=False)] for epoch in (0, 1, 0)]
    assert shares[0] == shares[2]
    assert len({*shares[0], *shares[1]}) == 6
    assert all(0 <= share <= 1 for share in shares[0])


def test_images_that_are_kept_on_the_device_are_the_same_as_streamed_ones() -> None:
    streamed = colored_batches([5, 3, 80, 11, 42, 7, 60])
    kept = replace(streamed, resident=True, batch_size=3)
    streamed = replace(streamed, resident=False, batch_size=3)
    for ours, theirs in zip(kept.in_order(), streamed.in_order(), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    pairs = zip(
        kept.shuffled(0, 1, recipe=RECIPE, flips=True), streamed.shuffled(0, 1, recipe=RECIPE, flips=True), strict=True
    )
    for (_, ours), (_, theirs) in pairs:
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
    assert kept._held is not None
    assert kept._held[0].shape == (7, 8, 8, 3)  # the batches' rows alone, not the store


def test_a_processor_reads_the_store_where_it_lies() -> None:
    batches = colored_batches(range(20))
    next(batches.in_order())
    assert batches._held is None
