"""What a file in somebody else's format must be able to do, however it is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from lucidate.core.errors import RunError

Outputs = Literal["logits", "probabilities"]
Layout = Literal["NCHW", "NHWC"]


class Refused(RunError, RuntimeError):
    """A file's own code refuses what it is given, such as images of another size."""


class Options(BaseModel):
    """What stands under `[model]` of the recipe of such a model.

    outputs: what the file gives. layout: of its input. order: its column for each class of the run; None: as they are.
    gray: a normalized pixel, that of a mean image, which stands for "nothing" where something is hidden.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    outputs: Outputs
    layout: Layout
    order: tuple[int, ...] | None = None
    gray: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Engine(Protocol):
    """What runs a file.

    differentiable: whether torch can follow it backwards. layers: names of its feature maps. softmaxed: whether the
    file ends in softmax, which is then left away: answers are logits. parameters, values: as in a run card.
    """

    differentiable: bool
    layers: tuple[str, ...]
    softmaxed: bool
    parameters: int
    values: int

    def __call__(self, images: Tensor, through: Mapping[str, nn.Module]) -> Tensor:
        """(B, 3, S, S) → (B, K). through: by layer, what its map (B, C, H, W) passes through. Raises Refused."""
        ...

    def rehearse(self, images: Tensor) -> Tensor:
        """The first call for a file that nobody has tried, (B, 3, S, S) → (B, K): it ends, whatever the file does.

        Raises Refused.
        """
        ...

    def scramble(self, images: Tensor, generator: torch.Generator) -> None:
        """Draw the weights anew, normal with each one's own deviation; statistics are measured on images again."""
        ...
