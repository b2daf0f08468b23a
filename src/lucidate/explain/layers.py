"""Which layer a heatmap is taken from, and how its output is got at.

A model is borrowed for looking inside: hooks, mode and gradients are given back as they were, whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lucidate.core.errors import ExplainError
from lucidate.core.registry import choices

LEAST = 4  # cells a side: a smaller map says hardly more than where the middle is


@dataclass(frozen=True)
class Layer:
    """A layer and what its output is made of.

    name: in the model. grid: (height, width) of its map. tokens: whether the output is (B, N, C), one token a cell in
    reading order, behind `skip` others such as CLS.
    """

    name: str
    grid: tuple[int, int]
    tokens: bool = False
    skip: int = 0

    def as_map(self, output: Tensor) -> Tensor:
        """The layer's output, or its gradient, as a map (B, C, H, W)."""
        if not self.tokens:
            return output
        cells = output[:, self.skip :].transpose(1, 2)
        return cells.reshape(*cells.shape[:2], *self.grid)


def find_layer(model: nn.Module, image_size: int, *, name: str | None = None) -> Layer:
    """The last feature map of at least 4×4, or the layer that is named. Raises ExplainError.

    Of a vision transformer, the normalization before the last block's attention: after it, only CLS still counts.
    image_size: pixels a side of what the model takes.
    """
    seen = trace(model, image_size)
    if name is not None:
        return _named(seen, name)
    good = [layer for layer in seen if min(layer.grid) >= LEAST]
    if not good:
        largest = max(seen, key=lambda layer: min(layer.grid), default=None)
        found = f"at most {largest.grid[0]}×{largest.grid[1]} ({largest.name})" if largest else "none"
        raise ExplainError(
            f"explain: expected a feature map of at least {LEAST}×{LEAST}, received {found} from images of "
            f"{image_size} pixels; set data.image_size higher, or fit = 'native' for a model of timm's"
        )
    before_attention = [layer for layer in good if layer.tokens and layer.name.endswith("norm1")]
    return before_attention[-1] if before_attention else good[-1]


def _named(seen: list[Layer], name: str) -> Layer:
    known = {layer.name: layer for layer in seen}
    if name not in known:
        raise ExplainError(f"--layer: expected {choices(name, list(known))}, received {name!r}")
    if min(known[name].grid) < LEAST:
        use = [layer.name for layer in seen if min(layer.grid) >= LEAST]
        height, width = known[name].grid
        instead = f"use {use[-1]}" if use else "no layer of this model has one"
        raise ExplainError(
            f"--layer: expected a map of at least {LEAST}×{LEAST}, {name} has {height}×{width}; {instead}"
        )
    return known[name]


@torch.no_grad()
def trace(model: nn.Module, image_size: int) -> list[Layer]:
    """Every layer whose output is a map, in the order in which they run; of one that runs twice, its last turn."""
    found: dict[str, Layer] = {}
    parameter = next(model.parameters(), torch.empty(0))  # files from elsewhere show none of theirs
    grid, skip = patch_grid(model)

    def look(name: str, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        layer = None
        if output.ndim == 4 and output.shape[2] > 1 and output.shape[3] > 1:
            layer = Layer(name, (output.shape[2], output.shape[3]))
        elif output.ndim == 4:
            layer = Layer(name, (1, 1))
        elif grid and output.ndim == 3 and output.shape[1] == grid[0] * grid[1] + skip:
            layer = Layer(name, grid, tokens=True, skip=skip)
        if layer:
            found.pop(name, None)
            found[name] = layer

    with borrowed(model) as hook:
        for name, module in model.named_modules():
            if name:
                hook(module, lambda _, __, output, name=name: look(name, output))
        model(torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype))
    return list(found.values())


def patch_grid(model: nn.Module) -> tuple[tuple[int, int] | None, int]:
    """(rows and columns of patches, tokens before them) of a vision transformer; (None, 0) of other models."""
    for module in model.modules():
        embed = getattr(module, "patch_embed", None)
        if embed is not None and getattr(embed, "grid_size", None) is not None:
            return tuple(embed.grid_size), int(getattr(module, "num_prefix_tokens", 0))
    return None, 0


@contextmanager
def borrowed(model: nn.Module) -> Iterator[Callable[[nn.Module, Callable[..., Any]], RemovableHandle]]:
    """The model in evaluation mode, no parameter asking for a gradient; yields `hook(module, function)`.

    At the end, also after an exception: every module's mode, every parameter's requires_grad and gradient are what they
    were, and the hooks that were set through it are gone.
    """
    modes = [(module, module.training) for module in model.modules()]
    wants = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with ExitStack() as hooks:

        def hook(module: nn.Module, function: Callable[..., Any]) -> RemovableHandle:
            handle = module.register_forward_hook(function)
            hooks.callback(handle.remove)
            return handle

        try:
            model.eval()
            for parameter, _, _ in wants:
                parameter.requires_grad_(False)
            yield hook
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, wanted, gradient in wants:
                parameter.requires_grad_(wanted)
                parameter.grad = gradient


@contextmanager
def attribute_set(modules: list[nn.Module], name: str, value: object) -> Iterator[None]:
    """Give an attribute of some modules another value for a while."""
    before = [getattr(module, name) for module in modules]
    try:
        for module in modules:
            setattr(module, name, value)
        yield
    finally:
        for module, old in zip(modules, before, strict=True):
            setattr(module, name, old)


class ActivationHook:
    """A forward hook that keeps a layer's output, cut off from what came before, so that gradients end there."""

    def __init__(self, *, gradients: bool) -> None:
        self.gradients = gradients
        self.output: Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:  # noqa: ARG002
        self.output = output.detach().requires_grad_(self.gradients)
        # An activation that works in place would write over what is kept, and may not on a leaf: it gets a copy.
        return self.output.clone() if self.gradients else output
