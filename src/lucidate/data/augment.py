"""Random changes to a batch of training images: vectorized over the batch, drawn from one generator."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pi

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lucidate.core.recipe import AugmentRecipe


@dataclass(frozen=True)
class Draws:
    """Random numbers for the images of one batch, from a generator on the CPU.

    Of a batch that several processes share, each draws for all of it and keeps its part: what an image gets does not
    depend on how many processes there are. batch: images in all. part: those of this process.
    """

    generator: torch.Generator
    batch: int
    part: slice = field(default_factory=lambda: slice(None))

    def uniform(self, count: int) -> Tensor:
        """(count, P) float32 in [0, 1) for the P images of this part."""
        return torch.rand(count, self.batch, generator=self.generator)[:, self.part]

    def integers(self, low: int, high: int, count: int) -> Tensor:
        """(count, P) int64 from low to high - 1."""
        return torch.randint(low, high, (count, self.batch), generator=self.generator)[:, self.part]

    def number(self, low: int, high: int) -> int:
        """One number from low to high - 1 for the whole batch."""
        return int(torch.randint(low, high, (1,), generator=self.generator))

    def beta(self, alpha: float) -> float:
        """One number from Beta(alpha, alpha) for the whole batch."""
        # torch's own takes no generator: NumPy's is seeded from ours.
        seed = int(torch.randint(2**62, (1,), generator=self.generator))
        return float(np.random.default_rng(seed).beta(alpha, alpha))


def flip_horizontally(images: Tensor, draws: Draws) -> Tensor:
    """Mirror each image with probability ½. images: (B, C, H, W) of any dtype."""
    (mirrored,) = draws.uniform(1) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)


def translate(images: Tensor, draws: Draws, *, pixels: int) -> Tensor:
    """Shift each image by whole pixels, up to `pixels` either way on each axis; edges are reflected. (B, C, H, W)"""
    batch, _, height, width = images.shape
    dy, dx = draws.integers(-pixels, pixels + 1, 2)[:, :, None]
    rows, columns = _reflected(torch.arange(height) + dy, height), _reflected(torch.arange(width) + dx, width)
    index = torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]
    return images.permute(0, 2, 3, 1)[tuple(each.to(images.device) for each in index)].permute(0, 3, 1, 2)


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0 … size - 1 folded back in, the edge itself not repeated."""
    positions = positions.abs() % (2 * size - 2) if size > 1 else positions * 0
    return torch.where(positions >= size, 2 * size - 2 - positions, positions)


def transform_affinely(
    images: Tensor, draws: Draws, *, rotation: float = 0.0, zoom: float = 0.0, shift: float = 0.0
) -> Tensor:
    """Rotate, zoom and shift each image, its own way each, in one bilinear resampling; edges are reflected.

    images: (B, C, H, W) floating point. rotation: turns, drawn from ±rotation. zoom: scale drawn from 1 ± zoom.
    shift: fraction of the side, drawn from ±shift for each axis.
    """
    # One draw of four numbers an image, whatever is used, keeps the sequence the same when one range is set to 0.
    angle, scale, dx, dy = (2 * draws.uniform(4) - 1).unbind(0)
    angle, scale = angle * rotation * 2 * pi, 1 + scale * zoom
    # affine_grid maps output positions to input positions in [-1, 1]: hence the inverse scale, and 2 × for shifts.
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([cosine, -sine, 2 * shift * dx], 1), torch.stack([sine, cosine, 2 * shift * dy], 1)]
    theta = torch.stack(rows, 1).to(images.device, images.dtype)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)  # grid_sample gives NCHW


def cut_out(images: Tensor, draws: Draws, *, pixels: int) -> Tensor:
    """Set a square of `pixels` a side to 0, the mean of normalized images, somewhere wholly within each image.

    images: (B, C, H, W). After T. DeVries and G. Taylor, arXiv:1708.04552; there the square may hang over the edge.
    """
    height, width = images.shape[2:]
    tall, wide = min(pixels, height), min(pixels, width)
    top = draws.integers(0, height - tall + 1, 1).T
    left = draws.integers(0, width - wide + 1, 1).T
    y, x = torch.arange(height), torch.arange(width)
    rows, columns = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
    hidden = (rows[:, :, None] & columns[:, None, :]).to(images.device)
    return images.masked_fill(hidden[:, None], 0.0)


def mix_up(images: Tensor, share: float) -> Tensor:
    """(B, C, H, W): share × image + (1 - share) × its partner (see `partners`). After H. Zhang, arXiv:1710.09412."""
    return torch.lerp(images[partners(len(images)).to(images.device)], images, share)


def cut_mix(images: Tensor, draws: Draws, *, alpha: float) -> tuple[Tensor, float]:
    """Paste a box of each image's partner over it: (images, part of their area that is their own).

    images: (B, C, H, W). After S. Yun et al., arXiv:1905.04899: one box a batch, in the image's proportions, of an area
    from Beta(alpha, alpha), centered anywhere. What hangs over the edge is cut off, and not counted.
    """
    height, width = images.shape[2:]
    side = (1 - draws.beta(alpha)) ** 0.5  # of the box, as a fraction of the image's
    rows, columns = (_interval(draws.number(0, size), round(size * side), size) for size in (height, width))
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[:, :, rows, columns][partners(len(images)).to(images.device)]
    return mixed, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)


def _interval(center: int, length: int, size: int) -> slice:
    """The part of 0 … size - 1 that lies within `length` positions around one."""
    start = center - length // 2
    return slice(max(start, 0), min(start + length, size))


def mix(images: Tensor, draws: Draws, *, recipe: AugmentRecipe) -> tuple[Tensor, float]:
    """The mixing that a recipe asks for: (images, weight of their own labels, the rest being their partners').

    images: (B, C, H, W). Of two ways, each batch takes either with probability ½.
    """
    if recipe.cutmix and not (recipe.mixup and draws.number(0, 2)):
        return cut_mix(images, draws, alpha=recipe.cutmix)
    if recipe.mixup:
        share = draws.beta(recipe.mixup)
        return mix_up(images, share), share
    return images, 1.0


def partners(batch: int) -> Tensor:
    """(B,) int64: images 0 and 1 are each other's partner, 2 and 3 …; the last of an odd number is its own."""
    # Neighbours will do: a batch's order is random already.
    return (torch.arange(batch) ^ 1).clamp(max=batch - 1)


def augment(images: Tensor, draws: Draws, *, recipe: AugmentRecipe, flips: bool, turn: Tensor | None = None) -> Tensor:
    """All that a recipe asks for, but for mixing, and `trivial`, which comes before. images: (B, C, H, W) float.

    flips: whether the source allows mirroring, for `flip = "auto"` and "alternating". turn: (B,) bool, which images
    are mirrored in this epoch when they alternate.
    """
    if recipe.flip == "alternating" and turn is not None:
        if flips:
            images = torch.where(turn.to(images.device)[:, None, None, None], images.flip(3), images)
    elif flips if recipe.flip == "auto" else recipe.flip:
        images = flip_horizontally(images, draws)
    if pixels := recipe.translate or round(recipe.crop * images.shape[-1]):
        images = translate(images, draws, pixels=pixels)
    if recipe.rotation or recipe.zoom or recipe.shift:
        images = transform_affinely(images, draws, rotation=recipe.rotation, zoom=recipe.zoom, shift=recipe.shift)
    if recipe.cutout:
        images = cut_out(images, draws, pixels=recipe.cutout)
    return images
