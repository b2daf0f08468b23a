"""TrivialAugment's wide space: one random operation an image, at a random magnitude, vectorized over the batch.

After S. Müller and F. Hutter, arXiv:2103.10158, with the operations and ranges of torchvision's `TrivialAugmentWide`,
pixel by pixel as there: what moves takes the nearest pixel, and 0, black, comes in from outside. Two things differ.
Values are not cut to whole steps of 1/255 on the way. And torchvision's translation of up to 32 pixels, whatever the
image's side, is a seventh of the side here: as many pixels at 224, where an image of 32 would be pushed out of sight.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor
from torch.nn import functional

from lucidate.data.augment import Draws

BINS = 31  # magnitudes, evenly spaced from none to the largest: the paper's
SHEAR = 0.99  # slope
TRANSLATION = 32 / 224  # of the side
ROTATION = 135 / 360  # turns
BLEND = 0.99  # brightness, color, contrast and sharpness are 1 ± this
POSTERIZED = 6  # of 8 bits
LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue, after ITU-R BT.601

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")  # which share one resampling
COLORS = ("brightness", "color", "contrast", "sharpness", "posterize", "solarize", "auto_contrast", "equalize")
OPERATIONS = ("identity", *MOVES, *COLORS)


def trivial_augment(images: Tensor, draws: Draws) -> Tensor:
    """Each image changed by one operation, all equally likely. (B, 3, H, W) float in [0, 1], not normalized."""
    return transform(images, *draw_operations(draws))


def draw_operations(draws: Draws) -> tuple[Tensor, Tensor]:
    """((B,) int64 positions in `OPERATIONS`, (B,) float32 magnitudes from -1 to 1, where ±1 is the largest)."""
    (operations,) = draws.integers(0, len(OPERATIONS), 1)
    (bins,) = draws.integers(0, BINS, 1)
    (signs,) = draws.integers(0, 2, 1)
    return operations, bins / (BINS - 1) * (2 * signs - 1)


def transform(images: Tensor, operations: Tensor, levels: Tensor) -> Tensor:
    """Each image changed by its own operation. images: (B, 3, H, W) float in [0, 1], sides of at least 3.

    operations: (B,) int64 positions in `OPERATIONS`. levels: (B,) float32 in [-1, 1]; operations without a direction
    take the magnitude alone, and those without a magnitude nothing. Both on the CPU, where images are grouped.
    Returns (B, 3, H, W) in [0, 1], channels_last.
    """
    order = operations.argsort(stable=True)
    operations, levels = operations[order], levels[order]
    starts = torch.searchsorted(operations, torch.arange(len(OPERATIONS) + 1)).tolist()
    changed = _picked(images, order)

    moved = slice(starts[OPERATIONS.index(MOVES[0])], starts[OPERATIONS.index(MOVES[-1]) + 1])
    if moved.start < moved.stop:
        matrices = _matrices(operations[moved], levels[moved], *images.shape[2:])
        changed[moved] = _resample(changed[moved], matrices.to(images.device))

    on_device = levels.to(images.device, images.dtype)[:, None, None, None]
    for name, change in _CHANGES.items():
        position = OPERATIONS.index(name)
        group = slice(starts[position], starts[position + 1])
        if group.start < group.stop:
            changed[group] = change(changed[group], on_device[group])

    return _picked(changed, order.argsort())


def _picked(images: Tensor, positions: Tensor) -> Tensor:
    """Some of the images, in channels_last."""
    # Indexed as they lie in memory: an image is one piece there.
    return images.permute(0, 2, 3, 1).index_select(0, positions.to(images.device)).permute(0, 3, 1, 2)


def _matrices(operations: Tensor, levels: Tensor, height: int, width: int) -> Tensor:
    """(B, 2, 3): where a pixel's value comes from, (x, y, 1) → (x, y), in pixels from the image's center."""

    def only(name: str) -> Tensor:
        return torch.where(operations == OPERATIONS.index(name), levels, 0.0)

    angle = only("rotate") * ROTATION * 2 * pi
    shear_x, shear_y = only("shear_x") * SHEAR, only("shear_y") * SHEAR
    # Whole pixels. Shears keep the top row or the left column, half a side from the center.
    dx = shear_x * height / 2 - (only("translate_x") * TRANSLATION * width).round()
    dy = shear_y * width / 2 - (only("translate_y") * TRANSLATION * height).round()
    # All but one of these are 0 for any image: what is added here is never composed.
    rows = [torch.stack([angle.cos(), shear_x - angle.sin(), dx], 1)]
    rows += [torch.stack([shear_y + angle.sin(), angle.cos(), dy], 1)]
    return torch.stack(rows, 1)


def _resample(images: Tensor, matrices: Tensor) -> Tensor:
    """The nearest pixel at the positions that `matrices` (see `_matrices`) give, 0 outside the image."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    along_x, along_y, constant = matrices[:, :, :, None, None].unbind(2)
    sides = torch.tensor([width, height], device=images.device)
    grid = (along_x * x + along_y * y + constant).permute(0, 2, 3, 1) * 2 / sides
    return functional.grid_sample(images, grid.to(images.dtype), mode="nearest", align_corners=False)


def _gray(images: Tensor) -> Tensor:
    """(B, 1, H, W) brightness."""
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _mean_gray(images: Tensor) -> Tensor:
    """(B, 1, 1, 1)"""
    return _gray(images).mean((1, 2, 3), keepdim=True)


def _smooth(images: Tensor) -> Tensor:
    """The blur of PIL's `SMOOTH`: of 3 × 3 pixels, the middle one weighs 5, the others 1; the edge stays as it is."""
    columns = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    squares = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = (squares + 4 * images[:, :, 1:-1, 1:-1]) / 13
    return smooth


def _blending(plain: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """From `plain` of the images, past them where the level is above 0, and short of them where below."""

    def blend(images: Tensor, levels: Tensor) -> Tensor:
        return torch.lerp(plain(images).expand_as(images), images, 1 + BLEND * levels).clamp(0, 1)

    return blend


def _posterize(images: Tensor, levels: Tensor) -> Tensor:
    """The highest bits of eight alone."""
    step = 2 ** (POSTERIZED * levels.abs()).round()
    return ((images * 255).round() / step).floor() * step / 255


def _solarize(images: Tensor, levels: Tensor) -> Tensor:
    """Values from a threshold on inverted."""
    # Thresholds are multiples of 8.5/255: a quarter of a step below one, no rounding of a value decides.
    threshold = 1 - levels.abs() - 0.25 / 255
    return torch.where(images > threshold, 1 - images, images)


def _auto_contrast(images: Tensor, levels: Tensor) -> Tensor:  # noqa: ARG001
    """Each channel stretched to [0, 1]; one of a single value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = high == low
    return torch.where(flat, images, (images - low) / torch.where(flat, 1.0, high - low))


def _equalize(images: Tensor, levels: Tensor) -> Tensor:  # noqa: ARG001
    """Each channel's values by their rank, as PIL counts it: in steps of 1/255, each of as many pixels."""
    values = (images * 255).round().long().flatten(2)
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    darker = counts.cumsum(2) - counts
    step = darker.gather(2, values.amax(2, keepdim=True)) // 255
    ranks = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    equalized = ranks.gather(2, values).view_as(images) / 255
    # Where all but the brightest pixels are fewer than 255, there is no step, and nothing changes.
    return torch.where(step[..., None] > 0, equalized, images)


_CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _blending(torch.zeros_like),
    "color": _blending(_gray),
    "contrast": _blending(_mean_gray),
    "sharpness": _blending(_smooth),
    "posterize": _posterize,
    "solarize": _solarize,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
}
