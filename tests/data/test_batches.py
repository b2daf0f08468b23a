from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from fakes import colored_batches, colored_images
from lucidate.core.errors import RunError
from lucidate.core.recipe import AugmentRecipe
from lucidate.data.augment import (
    Draws,
    augment,
    cut_mix,
    cut_out,
    flip_horizontally,
    mix_up,
    transform_affinely,
    translate,
)
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


def test_the_other_options_leave_the_draw_of_a_mix_as_it_was() -> None:
    batches = colored_batches(range(48))
    for step, batch in batches.shuffled(2, 1, recipe=AugmentRecipe(mixup=0.4), flips=False):
        assert batch.share == Draws(generator_for(2, 1, step), 16).beta(0.4)


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 10.0])
def test_cut_and_pasted_is_one_box_of_the_neighbour(count: int, alpha: float) -> None:
    images = torch.arange(count).float()[:, None, None, None].repeat(1, 3, 16, 12)
    neighbours = torch.tensor([1.0, 0.0, 3.0, 2.0, 4.0])[:count, None, None, None]
    shares, covered = [], torch.zeros(16, 12)
    for seed in range(300):
        mixed, share = cut_mix(images, draws_of(seed, count), alpha=alpha)
        pasted = mixed == neighbours
        box = pasted[0, 0]
        assert torch.equal(box, box.any(1)[:, None] & box.any(0)[None, :])
        assert torch.equal(pasted[:4], box.expand(4, 3, 16, 12))  # an odd last one has itself pasted on it
        assert torch.equal(mixed, torch.where(box, neighbours, images))
        assert share == pytest.approx(1 - float(box.float().mean()))
        shares.append(share)
        covered += box
    assert covered.min() > 0
    assert len(set(shares)) > 20
    # Half of the area before it is cut off at the edges, which leaves of it the more, the smaller boxes are.
    assert 0.55 < np.mean(shares) < 0.75
    assert torch.equal(images[:, 0, 0, 0], torch.arange(count).float())  # what was given is as it was


def test_where_both_ways_of_mixing_are_asked_for_each_batch_takes_one() -> None:
    batches = replace(colored_batches(range(90)), batch_size=2)
    recipe = AugmentRecipe(flip=False, mixup=10.0, cutmix=10.0)
    plain = dict(batches.shuffled(0, 1, recipe=AugmentRecipe(flip=False), flips=False))
    blended = 0
    for step, batch in batches.shuffled(0, 1, recipe=recipe, flips=False):
        images = plain[step].images
        if torch.allclose(batch.images, mix_up(images, batch.share), atol=1e-6):
            blended += 1
        else:
            own = (batch.images == images).all(1)
            assert torch.equal(torch.where(own[:, None], images, images.flip(0)), batch.images)
            assert float(own.float().mean()) == pytest.approx(batch.share)
    assert 12 < blended < 33  # of 45


@pytest.mark.parametrize("asked", [{"cutmix": 1.0}, {"cutmix": 0.5, "mixup": 0.5, "translate": 1}])
@pytest.mark.parametrize("ranks", [2, 3])
def test_parts_of_a_batch_get_what_they_get_in_the_whole(asked: dict[str, float], ranks: int) -> None:
    recipe = AugmentRecipe.model_validate({"trivial": True, **asked})
    whole = colored_batches(range(75))
    parts = [replace(whole, rank=rank, ranks=ranks) for rank in range(ranks)]
    steps = [dict(batches.shuffled(3, 1, recipe=recipe, flips=True)) for batches in (whole, *parts)]
    assert len(steps[0]) == 5
    for step, batch in steps[0].items():
        together = torch.cat([part[step].images for part in steps[1:]])
        torch.testing.assert_close(together, batch.images, atol=1e-5, rtol=0)
        assert {part[step].share for part in steps[1:]} == {batch.share}


def test_trivial_augmentation_sees_pixels_before_they_are_normalized() -> None:
    batches = colored_batches(range(90))
    seen, plain = (
        torch.cat([batch.images for _, batch in batches.shuffled(0, 1, recipe=recipe, flips=False)])
        for recipe in (AugmentRecipe(trivial=True), AugmentRecipe())
    )
    assert seen.is_contiguous(memory_format=torch.channels_last)
    black, white = -0.5 / 0.25, 0.5 / 0.25
    assert seen.min() == pytest.approx(black)  # what comes in from outside
    assert seen.max() <= white + 1e-6
    alike = ((seen - plain).abs() < 1e-5).flatten(1).all(1)
    assert 2 <= int(alike.sum()) < 45  # the identity, and what changes nothing at these magnitudes or this size


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
