"""A run as one module, pixels to probabilities, and as a torch.export program: what every other form is made from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lucidate.core.atomic import atomic_path
from lucidate.core.errors import ExportError
from lucidate.core.recipe import ModelRecipe
from lucidate.core.records import RunCard
from lucidate.core.registry import ENSEMBLE, EXTERNAL
from lucidate.core.run import RunDir
from lucidate.core.text import one_line
from lucidate.data.preprocess import Preprocess
from lucidate.models.checkpoint import load_model
from lucidate.models.ensemble import Averaged, Ensemble
from lucidate.models.fastnet import Group
from lucidate.models.tta import Views

EXAMPLE = 2  # images a tracer is shown: of a batch of one it would keep the one


@dataclass(frozen=True)
class Way:
    """How one model is asked. size: pixels a side that it sees. order: its column for each class; None: as they are."""

    preprocess: Preprocess
    views: Views
    mirror: bool
    order: tuple[int, ...] | None = None


class Asked(nn.Module):
    """A model with its resizing, normalization and views. Takes (B, 3, S, S) float32, 0 to 255; gives logits (B, K).

    All views of a batch are one larger batch: a graph then holds the network once, not six times.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, way: Way) -> None:
        super().__init__()
        self.model = model
        self.way = way
        mean, std = torch.tensor(way.preprocess.mean), torch.tensor(way.preprocess.std)
        self.register_buffer("scale", (std * 255).reciprocal()[:, None, None])
        self.register_buffer("offset", (-mean / std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        own = self.way.preprocess.size
        if pixels.shape[-1] != own:
            pixels = functional.interpolate(pixels, (own, own), mode="bilinear", antialias=True)
        images = pixels * self.scale + self.offset
        shown, weights = _views(images, self.way)
        logits: Tensor = self.model(torch.cat(shown) if len(shown) > 1 else images)
        if len(shown) > 1:
            each = torch.tensor(weights, device=logits.device)[:, None, None]
            logits = (logits.reshape(len(shown), -1, logits.shape[-1]) * each).sum(0)
        if self.way.order is not None:
            logits = torch.stack([logits[:, column] for column in self.way.order], 1)
        return logits


class Whole(nn.Module):
    """A run's answer: uint8 images (B, S, S, 3) of the run's size → logits and probabilities, (B, K) float32 each.

    parts: one model, or the members of an ensemble, with their shares and what is averaged (as in `models.ensemble`).
    """

    def __init__(self, parts: Sequence[Asked], shares: Sequence[float], averaged: Averaged) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.shares = tuple(shares)
        self.averaged = averaged

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.permute(0, 3, 1, 2).float()
        logits = torch.stack([part(pixels) for part in self.parts]) if len(self.parts) > 1 else self.parts[0](pixels)
        if len(self.parts) > 1:
            shares = torch.tensor(self.shares)[:, None, None]
            if self.averaged == "logits":
                logits = (shares * logits).sum(0)
            else:
                logits = (logits.log_softmax(-1) + shares.log()).logsumexp(0)
        return logits, logits.softmax(-1)


def load_program(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """A program of ours as a function: uint8 images (B, S, S, 3) → probabilities (B, K)."""
    with silent():
        module = torch.export.load(path).module()

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probabilities: NDArray[np.float32] = module(torch.from_numpy(images))[1].numpy()
        return probabilities

    return answer


def with_views(model: nn.Module, views: Views | None) -> nn.Module:
    """An ensemble whose members are all asked in one way, in place; all else, and with None, stays as it is."""
    if isinstance(model, Ensemble) and views:
        model.settings = tuple(member.model_copy(update={"views": views}) for member in model.settings)
    return model


def whole_of(run: RunDir, *, views: Views | None = None) -> Whole:
    """A run's model as one module, in evaluation mode on the processor.

    views: in place of the recipe's; of an ensemble, in place of every member's. Raises ExportError for a model that was
    brought as a file, which torch cannot look into.
    """
    card = RunCard.load(run.card)
    require_own(card)
    model = load_model(run).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    _fold_past_pooling(model)
    if isinstance(with_views(model, views), Ensemble):
        # A member without a share is never asked.
        used = [(net, one) for net, one in zip(model.members, model.settings, strict=True) if one.share > 0]
        parts = [Asked(net, Way(one.preprocess, one.views, one.mirror, order=one.order)) for net, one in used]
        shares = [one.share for _, one in used]
        return Whole(parts, shares, model.averaged).eval()
    way = Way(Preprocess.from_dict(card.preprocess), views or card.recipe.predict.views, card.data.flips)
    return Whole([Asked(model, way)], [1.0], "softmax").eval()


def require_own(card: RunCard) -> None:
    recipes = [card.recipe.model]
    if card.recipe.model.name == ENSEMBLE:
        recipes = [ModelRecipe.model_validate(member["model"]) for member in card.recipe.model.options["members"]]
    for recipe in recipes:
        if recipe.name in EXTERNAL:
            raise ExportError(
                f"run: expected a model of lucidate's or timm's, received one that came as a file ({recipe.name}): "
                "that file is its export"
            )


def _fold_past_pooling(model: nn.Module) -> None:
    """Fold fastnet's BatchNorm into the convolution from which pooling parts it, in place.

    A norm that only shifts and shrinks keeps the order of values, so it may change places with max pooling. Converters
    fold it where it follows a convolution, and only there.
    """
    for group in model.modules():
        if isinstance(group, Group) and bool((group.norm1.weight > 0).all()):
            group.conv1 = fuse_conv_bn_eval(group.conv1, group.norm1)
            group.norm1 = nn.Identity()  # type: ignore[assignment]


def traced(whole: Whole, *, size: int) -> torch.export.ExportedProgram:
    """The module as a torch.export program for batches of any length. Raises ExportError."""
    images = torch.zeros(EXAMPLE, size, size, 3, dtype=torch.uint8)
    try:
        with silent():
            return torch.export.export(whole, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # a tracer meets whatever a model's code raises
        reason = one_line(error)
        raise ExportError(
            f"export: expected a model that torch.export can trace, received one it cannot: {reason}"
        ) from None


def export_program(run: RunDir, path: Path, *, views: Views | None = None) -> None:
    """Write a torch.export program: images (B, S, S, 3) uint8 of the run's size → (logits, probabilities).

    B may be anything; `torch.export.load(path).module()(images)` runs it without lucidate. Raises ExportError.
    """
    card = RunCard.load(run.card)
    program = traced(whole_of(run, views=views), size=Preprocess.from_dict(card.preprocess).size)
    program.example_inputs = None  # torch would pickle them
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # files of the exporting machine, line by line
    with atomic_path(path) as temporary, silent():
        torch.export.save(program, temporary)


@contextmanager
def silent() -> Iterator[None]:
    """Without what torch warns of itself while it traces: nothing in it is for the user to mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*", category=FutureWarning)
        yield


def _views(images: Tensor, way: Way) -> tuple[list[Tensor], list[float]]:
    """The views of a batch and their weights, which add up to 1: the same mean as `models.views.tta_logits`."""
    shown = [images]
    if way.views == "mirror-shift":
        size = images.shape[-1]
        padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
        shown += [padded[:, :, place : place + size, place : place + size] for place in (0, 2)]
    weights = [1.0] if len(shown) == 1 else [0.5, 0.25, 0.25]
    if way.views != "one" and way.mirror:
        shown = [view for image in shown for view in (image, image.flip(3))]
        weights = [weight / 2 for weight in weights for _ in range(2)]
    return shown, weights
