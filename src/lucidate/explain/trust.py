"""Does a heatmap deserve belief? Three tests against chance, and a verdict in words."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from lucidate.models.external import External

Explainer = Callable[[nn.Module, Tensor, Tensor], Tensor]  # model, (B, 3, S, S), (B,) target → (B, S, S)

BATCH = 128  # images; larger batches leave a processor's cache
CHANCE = 0.25  # of the attribution that falls into one of four cells, if it knows nothing
FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)  # of the pixels that are taken away
EMPTY = 1e-6  # largest value of a map, relative to the largest of all, below which it says nothing
FLAT = 1e-3  # spread of a map relative to its mean, below which it says nothing either
DEPENDS, IGNORES = 0.3, 0.7  # rank correlation with random weights' maps: below, they matter; above, they do not


@dataclass(frozen=True)
class Share:
    """A mean with its 95 % interval, by the normal approximation, over `count` images."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Trust:
    """What tests say of one method on one model.

    empty: share of maps that are zero or flat everywhere. randomization: rank correlation of maps with those of random
    weights, near 0 for a method that looks at the model. pointing: share of the positive attribution inside the right
    quarter of a mosaic of four images; chance .25, 1 is best. deletion: mean probability of the target while the
    marked pixels are taken away, lower is better; *_random and *_center: likewise by a random order, and from the
    middle outwards. insertion: while they are put back, higher is better. *_gain: over the better of the latter two.
    """

    method: str
    empty: float
    randomization: Share
    pointing: Share
    deletion: Share
    deletion_random: Share
    deletion_center: Share
    insertion: Share
    insertion_random: Share
    insertion_center: Share
    deletion_gain: Share
    insertion_gain: Share
    verdict: str


def measure_trust(
    model: nn.Module, images: Tensor, labels: Tensor, explain: Explainer, *, method: str, seed: int = 0
) -> Trust:
    """Test a method on normalized images (N, 3, S, S) that the model gets right, with their labels (N,).

    explain: gives maps, 0 or more, in image size. Some hundreds of images give intervals of a few points.
    """
    generator = torch.Generator().manual_seed(seed)
    maps = explain(model, images, labels).cpu()
    theirs = explain(scramble(model, images, generator=generator), images, labels).cpu()
    empty = empty_maps(maps)
    both = ~(empty | empty_maps(theirs))
    randomization = share_of(rank_correlations(maps[both].numpy(), theirs[both].numpy()))
    pointing = share_of(point(model, images, labels, explain, generator=generator))
    noise = torch.rand(maps.shape, generator=generator)
    middle = centered(maps.shape[-1]).expand_as(maps)
    curves = {
        f"{kind}{order}": curve(model, images, labels, ranking, insert=kind == "insertion")
        for kind in ("deletion", "insertion")
        for order, ranking in (("", maps), ("_random", noise), ("_center", middle))
    }
    away = np.minimum(curves["deletion_random"], curves["deletion_center"]) - curves["deletion"]
    back = curves["insertion"] - np.maximum(curves["insertion_random"], curves["insertion_center"])
    share = float(empty.float().mean())
    return Trust(
        method=method,
        empty=share,
        randomization=randomization,
        pointing=pointing,
        **{name: share_of(values) for name, values in curves.items()},
        deletion_gain=share_of(away),
        insertion_gain=share_of(back),
        verdict=verdict(share, randomization, pointing, curves),
    )


def verdict(empty: float, randomization: Share, pointing: Share, curves: Mapping[str, NDArray[np.float64]]) -> str:
    """One sentence for people; it begins with "empty", "believe", "with care" or "do not believe"."""
    if empty > 0.5:
        return f"empty: {100 * empty:.0f} % of the maps are zero or flat everywhere; nothing can be read from them"
    beats = {
        name: share_of(curves[f"deletion_{name}"] - curves["deletion"]).low > 0
        or share_of(curves["insertion"] - curves[f"insertion_{name}"]).low > 0
        for name in ("random", "center")
    }
    reasons, alike = [], f"rank correlation {randomization.mean:.2f}"
    if randomization.count and randomization.mean > DEPENDS:
        reasons.append(f"maps of random weights look alike ({alike}, should be near 0)")
    if pointing.low <= CHANCE:
        reasons.append(f"it points into the right quarter no better than chance ({pointing.mean:.2f} against .25)")
    if not beats["random"]:
        reasons.append("taking away what it marks changes the answer no more than taking away anything")
    elif not beats["center"]:
        reasons.append("marking the middle of every image does as well")
    if not reasons:
        return (
            f"believe, as a hint: {100 * pointing.mean:.0f} % of it lies in the right quarter of four (chance 25 %), "
            f"it depends on what was learned ({alike}), and what it marks matters more than random places and the "
            "middle"
        )
    word = "do not believe" if len(reasons) > 1 or randomization.mean > IGNORES else "with care"
    return f"{word}: {'; '.join(reasons)}"


def empty_maps(maps: Tensor) -> Tensor:
    """(N,) bool: zero everywhere, compared with the others, or flat. maps: (N, S, S)."""
    high, low = maps.amax((1, 2)), maps.amin((1, 2))
    return (high.abs().maximum(low.abs()) <= EMPTY * maps.abs().max()) | ((high - low) <= FLAT * high.abs())


def scramble(model: nn.Module, images: Tensor, *, generator: torch.Generator) -> nn.Module:
    """A copy with weights drawn anew, each by its own deviation, and statistics to suit (Adebayo, arXiv:1810.03292)."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            spread = parameter.std() if parameter.numel() > 1 else parameter.abs()
            if parameter.ndim > 1:
                parameter.copy_(noise * spread)
        other.eval()
        for module in other.modules():
            if isinstance(module, External):
                module.engine.scramble(images, generator)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
                module.momentum = None  # the plain mean over batches
                module.train()
        for part in torch.split(images[: 4 * BATCH], BATCH):
            other(part)
    return other.eval()


def rank_correlations(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Spearman's rank correlation of each pair of maps (N, S, S) → (N,), from -1 to 1."""
    if not len(first):
        return np.zeros(0)
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    a, b = (values - values.mean(1, keepdims=True) for values in ranks)
    spread = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), spread, out=np.zeros(len(a)), where=spread > 0)


def point(
    model: nn.Module, images: Tensor, labels: Tensor, explain: Explainer, *, generator: torch.Generator
) -> NDArray[np.float64]:
    """(M,) share of the positive attribution that lies in the target's cell of 2×2 mosaics of four classes.

    After M. Böhle et al., arXiv:2104.00032 (grid pointing game). Mosaics are twice as large as the images where the
    model takes such, else brought to their size. A map without any counts as chance.
    """
    groups = four_classes(labels.cpu(), generator=generator)
    if not len(groups):
        return np.zeros(0)
    first, second, third, fourth = (images[column] for column in groups.T)
    mosaics = torch.cat([torch.cat([first, second], dim=3), torch.cat([third, fourth], dim=3)], dim=2)
    side, rows = images.shape[-1], torch.arange(len(groups))
    cell = rows % 4  # each cell is asked for as often
    target = labels[groups[rows, cell]]
    try:
        maps = explain(model, mosaics, target)
    except (AssertionError, RuntimeError):  # made for one size, as transformers are
        mosaics = functional.interpolate(mosaics, (side, side), mode="bilinear", antialias=True, align_corners=False)
        maps = explain(model, mosaics, target)
    positive = maps.cpu().clamp(min=0)
    half = positive.shape[-1] // 2
    cells = positive[:, : 2 * half, : 2 * half].reshape(-1, 2, half, 2, half).sum((2, 4)).flatten(1)
    total, inside = cells.sum(1), cells[rows, cell]
    return torch.where(total > 0, inside / total.clamp(min=1e-30), torch.tensor(CHANCE)).double().numpy()


def four_classes(labels: Tensor, *, generator: torch.Generator) -> Tensor:
    """(M, 4) rows of images of four different classes, each image used once at most."""
    waiting: dict[int, list[int]] = {}
    for row in torch.randperm(len(labels), generator=generator).tolist():
        waiting.setdefault(int(labels[row]), []).append(row)
    groups = []
    while len(left := [rows for rows in waiting.values() if rows]) >= 4:
        members = [rows.pop() for rows in sorted(left, key=len, reverse=True)[:4]]
        groups.append([members[place] for place in torch.randperm(4, generator=generator).tolist()])
    return torch.tensor(groups, dtype=torch.int64).reshape(-1, 4)


def centered(side: int) -> Tensor:
    """(side, side): a Gaussian around the middle, what knows nothing of an image would mark."""
    place = (torch.arange(side) - (side - 1) / 2) / (side / 4)
    return torch.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / 2)


@torch.no_grad()
def curve(model: nn.Module, images: Tensor, labels: Tensor, ranking: Tensor, *, insert: bool) -> NDArray[np.float64]:
    """(N,) mean probability of the label while pixels are blurred away, highest ranked first, or put back (insert).

    After V. Petsiuk et al., arXiv:1806.07421; a blurred image in place of a gray one keeps color, and is nearer to
    what the model knows. ranking: (N, S, S).
    """
    side, rows = images.shape[-1], torch.arange(len(images))
    coarse = functional.adaptive_avg_pool2d(images, max(side // 8, 2))  # averages of an eighth of the side, smoothed
    blurred = functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    # A little noise would break ties at random; a fixed order keeps it reproducible.
    order = ranking.flatten(1).argsort(dim=1, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(1, order, torch.arange(side * side).expand_as(order))
    probabilities = []
    for fraction in FRACTIONS:
        taken = (place < round(fraction * side * side)).view(-1, 1, side, side).to(images.device)
        mixed = torch.where(taken, images, blurred) if insert else torch.where(taken, blurred, images)
        answers = [model(part).softmax(1).cpu() for part in torch.split(mixed, BATCH)]
        probabilities.append(torch.cat(answers)[rows, labels.cpu()].double().numpy())
    return np.trapezoid(probabilities, FRACTIONS, axis=0) / np.diff(FRACTIONS).sum()


def share_of(values: NDArray[np.float64]) -> Share:
    """The mean of some values with its interval."""
    if not len(values):
        return Share(float("nan"), float("nan"), float("nan"), 0)
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    mean = float(values.mean())
    return Share(mean, mean - half, mean + half, len(values))
