"""What is done to pixels before a model sees them. It travels with the weights: everywhere the same value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lucidate.core.errors import RunError
from lucidate.core.text import one_line
from lucidate.data.packed import read_rows

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 20_000  # images are enough for statistics to four digits, and bound the time on any folder


@dataclass(frozen=True)
class Preprocess:
    """Square size in pixels; mean and standard deviation a channel (RGB, of values in [0, 1]); how images get it."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"

    def normalize(self, images: Tensor) -> Tensor:
        """(B, H, W, 3), 0 to 255 → (B, 3, H, W) float32 in channels_last, mean 0 and deviation 1 a channel."""
        import torch  # here, since whoever asks a graph needs no torch, which takes a second to load

        scale = torch.tensor(self.std, device=images.device).mul(255).reciprocal()
        offset = torch.tensor(self.mean, device=images.device) * -255 * scale
        return torch.addcmul(offset, images.float(), scale).permute(0, 3, 1, 2)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The inverse of `as_dict`, also after a trip through JSON. Raises RunError."""
        try:
            mean, std = tuple(map(float, values["mean"])), tuple(map(float, values["std"]))
            if not len(mean) == len(std) == 3 or min(std) <= 0:
                raise ValueError("mean and std need three values each, std above 0")
            return cls(int(values["size"]), mean, std, str(values["interpolation"]))
        except (KeyError, TypeError, ValueError) as error:
            found = f"without {error}" if isinstance(error, KeyError) else f"in which {one_line(error, limit=120)}"
            raise RunError(f"preprocess: expected size, mean, std and interpolation, received values {found}") from None


def fit_preprocess(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> Preprocess:
    """Statistics of training images, of 20,000 evenly spaced at most. images: (N, S, S, 3) uint8. rows: into it."""
    if len(rows) > SAMPLE:
        rows = rows[np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64)]
    total, square = np.zeros(3), np.zeros(3)
    for start in range(0, len(rows), 1024):
        batch = read_rows(images, rows[start : start + 1024]).reshape(-1, 3) / 255.0
        total += batch.sum(axis=0)
        square += (batch**2).sum(axis=0)
    pixels = len(rows) * images.shape[1] * images.shape[2]
    mean = total / pixels
    # A channel that never changes would divide by zero; 1/255 is one step of the scale.
    std = np.sqrt(np.maximum(square / pixels - mean**2, (1 / 255) ** 2))
    rounded = [tuple(round(float(value), 6) for value in values) for values in (mean, std)]
    return Preprocess(images.shape[1], *rounded)  # type: ignore[arg-type]
