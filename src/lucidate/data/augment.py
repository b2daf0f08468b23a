"""Random changes to a batch of training images: vectorized over the batch, drawn from one generator."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor
from torch.nn import functional

from lucidate.core.recipe import AugmentRecipe


def flip_horizontally(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability ½. images: (B, C, H, W) of any dtype."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)


def translate(images: Tensor, generator: torch.Generator, *, pixels: int) -> Tensor:
    """Shift each image by whole pixels, up to `pixels` either way on each axis; edges are reflected.

    images: (B, C, H, W). Needs no resampling: an index of rows and columns an image.
    """
    batch, _, height, width = images.shape
    dy, dx = torch.randint(-pixels, pixels + 1, (2, batch, 1), generator=generator)
    rows, columns = _reflected(torch.arange(height) + dy, height), _reflected(torch.arange(width) + dx, width)
    rows, columns = rows.to(images.device), columns.to(images.device)
    picked = images.permute(0, 2, 3, 1)[
        torch.arange(batch, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return picked.permute(0, 3, 1, 2)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places outside 0 … size - 1 folded back in, the edge itself not repeated."""
    places = places.abs() % (2 * size - 2) if size > 1 else places * 0
    return torch.where(places >= size, 2 * size - 2 - places, places)


def transform_affinely(
    images: Tensor, generator: torch.Generator, *, rotation: float = 0.0, zoom: float = 0.0, shift: float = 0.0
) -> Tensor:
    """Rotate, zoom and shift each image, its own way each, in one bilinear resampling; edges are reflected.

    images: (B, C, H, W) floating point. rotation: turns, drawn from ±rotation. zoom: scale drawn from 1 ± zoom.
    shift: fraction of the side, drawn from ±shift for each axis.
    """
    batch = len(images)
    # One draw of four numbers an image, whatever is used, keeps the sequence the same when one range is set to 0.
    angle, scale, dx, dy = (2 * torch.rand(4, batch, generator=generator) - 1).unbind(0)
    angle, scale = angle * rotation * 2 * pi, 1 + scale * zoom
    # affine_grid maps output places to input places in [-1, 1]: hence the inverse scale, and 2 × for shifts.
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([cosine, -sine, 2 * shift * dx], 1), torch.stack([sine, cosine, 2 * shift * dy], 1)]
    theta = torch.stack(rows, 1).to(images.device, images.dtype)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)  # grid_sample gives NCHW


def augment(
    images: Tensor,
    generator: torch.Generator,
    *,
    recipe: AugmentRecipe,
    flips: bool,
    turn: Tensor | None = None,
) -> Tensor:
    """All that a recipe asks for. images: (B, C, H, W) float; the generator is on the CPU.

    flips: whether the source allows mirroring, for `flip = "auto"` and "alternating". turn: (B,) bool, which images
    are mirrored in this epoch when they alternate.
    """
    if recipe.flip == "alternating" and turn is not None:
        if flips:
            images = torch.where(turn.to(images.device)[:, None, None, None], images.flip(3), images)
    elif flips if recipe.flip == "auto" else recipe.flip:
        images = flip_horizontally(images, generator)
    if recipe.translate:
        images = translate(images, generator, pixels=recipe.translate)
    if recipe.rotation or recipe.zoom or recipe.shift:
        images = transform_affinely(images, generator, rotation=recipe.rotation, zoom=recipe.zoom, shift=recipe.shift)
    return images
