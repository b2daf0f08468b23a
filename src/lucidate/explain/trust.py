"""Does a heatmap deserve belief? Three tests against chance, and a verdict in words."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from lucidate.models.external import External

Explainer = Callable[[nn.Module, Tensor, Tensor], Tensor]  # model, (B, 3, S, S), (B,) target → (B, S, S)

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
    marked pixels are taken away, lower is better; deletion_random and deletion_center: likewise by a random order, and
    from the middle outwards. insertion: while they are put back, higher is better; likewise. verdict: in words.
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
    empty = empty_maps(maps)
    scrambled = scramble(model, images, generator=generator)
    theirs = explain(scrambled, images, labels).cpu()
    both = ~(empty | empty_maps(theirs))
    randomization = share_of(rank_correlations(maps[both].numpy(), theirs[both].numpy()))
    pointing = share_of(point(model, images, labels, explain, generator=generator))
    noise = torch.rand(maps.shape, generator=generator)
    middle = centered(maps.shape[-1]).expand_as(maps)
    away, back = (
        {
            name: curve(model, images, labels, ranking, insert=insert)
            for name, ranking in (("own", maps), ("random", noise), ("center", middle))
        }
        for insert in (False, True)
    )
    deletion_gain = share_of(np.minimum(away["random"], away["center"]) - away["own"])
    insertion_gain = share_of(back["own"] - np.maximum(back["random"], back["center"]))
    share = float(empty.float().mean())
    return Trust(
        method=method,
        empty=share,
        randomization=randomization,
        pointing=pointing,
        deletion=share_of(away["own"]),
        deletion_random=share_of(away["random"]),
        deletion_center=share_of(away["center"]),
        insertion=share_of(back["own"]),
        insertion_random=share_of(back["random"]),
        insertion_center=share_of(back["center"]),
        deletion_gain=deletion_gain,
        insertion_gain=insertion_gain,
        verdict=verdict(share, randomization, pointing, away, back),
    )


def verdict(
    empty: float,
    randomization: Share,
    pointing: Share,
    away: dict[str, NDArray[np.float64]],
    back: dict[str, NDArray[np.float64]],
) -> str:
    """One sentence for people; it begins with "empty", "believe", "with care" or "do not believe"."""
    if empty > 0.5:
        return f"empty: {100 * empty:.0f} % of the maps are zero or flat everywhere; nothing can be read from them"
    beats = {
        name: share_of(away[name] - away["own"]).low > 0 or share_of(back["own"] - back[name]).low > 0
        for name in ("random", "center")
    }
    reasons = []
    if randomization.count and randomization.mean > DEPENDS:
        reasons.append(
            f"maps of random weights look alike (rank correlation {randomization.mean:.2f}, should be near 0)"
        )
    if pointing.low <= CHANCE:
        reasons.append(f"it points into the right quarter no better than chance ({pointing.mean:.2f} against .25)")
    if not beats["random"]:
        reasons.append("taking away what it marks changes the answer no more than taking away anything")
    elif not beats["center"]:
        reasons.append("marking the middle of every image does as well")
    if not reasons:
        return (
            f"believe, as a hint: {100 * pointing.mean:.0f} % of it lies in the right quarter of four (chance 25 %), "
            f"it depends on what was learned (rank correlation {randomization.mean:.2f}), and what it marks matters "
            "more than random places and the middle"
        )
    word = "do not believe" if len(reasons) > 1 or randomization.mean > IGNORES else "with care"
    return f"{word}: {'; '.join(reasons)}"


def empty_maps(maps: Tensor) -> Tensor:
    """(N,) bool: zero everywhere, compared with the others, or flat. maps: (N, S, S)."""
    high, low = maps.amax((1, 2)), maps.amin((1, 2))
    return (high.abs().maximum(low.abs()) <= EMPTY * maps.abs().max()) | ((high - low) <= FLAT * high.abs())


def scramble(model: nn.Module, images: Tensor, *, generator: torch.Generator) -> nn.Module:
    """A copy whose weights are drawn anew, normal with each tensor's own deviation; statistics are measured again.

    After J. Adebayo et al., "Sanity checks for saliency maps" (arXiv:1810.03292).
    """
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            spread = parameter.std() if parameter.numel() > 1 else parameter.abs()
            if parameter.ndim > 1:
                parameter.copy_(noise * spread)
        for file in (module for module in other.modules() if isinstance(module, External)):
            file.scramble(images, generator)
        norms = [module for module in other.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        other.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        for start in range(0, min(len(images), 512), 128):
            other(images[start : start + 128])
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
    tiles = images[groups.flatten()].reshape(len(groups), 4, *images.shape[1:])
    rows = [torch.cat([tiles[:, 2 * row], tiles[:, 2 * row + 1]], dim=3) for row in (0, 1)]
    mosaics = torch.cat(rows, dim=2)
    side = images.shape[-1]
    cell = torch.arange(len(groups)) % 4  # each cell is asked for as often
    target = labels[groups[torch.arange(len(groups)), cell]]
    try:
        maps = explain(model, mosaics, target)
    except (AssertionError, RuntimeError):  # made for one size, as transformers are
        mosaics = functional.interpolate(mosaics, (side, side), mode="bilinear", antialias=True, align_corners=False)
        maps = explain(model, mosaics, target)
    positive = maps.cpu().clamp(min=0)
    half = positive.shape[-1] // 2
    cells = positive[:, : 2 * half, : 2 * half].reshape(-1, 2, half, 2, half).sum((2, 4)).flatten(1)
    total = cells.sum(1)
    inside = cells[torch.arange(len(cells)), cell]
    return torch.where(total > 0, inside / total.clamp(min=1e-30), torch.tensor(CHANCE)).double().numpy()


def four_classes(labels: Tensor, *, generator: torch.Generator) -> Tensor:
    """(M, 4) rows of images of four different classes, each image used once at most."""
    order = torch.randperm(len(labels), generator=generator).tolist()
    waiting: dict[int, list[int]] = {}
    for row in order:
        waiting.setdefault(int(labels[row]), []).append(row)
    groups = []
    while len([rows for rows in waiting.values() if rows]) >= 4:
        fullest = sorted((label for label in waiting if waiting[label]), key=lambda label: -len(waiting[label]))[:4]
        members = [waiting[label].pop() for label in fullest]
        shuffle = torch.randperm(4, generator=generator).tolist()
        groups.append([members[place] for place in shuffle])
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
    side = images.shape[-1]
    blurred = blur(images)
    # A little noise would break ties at random; a fixed order keeps it reproducible.
    order = ranking.flatten(1).argsort(dim=1, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(1, order, torch.arange(side * side).expand_as(order))
    probabilities = []
    rows = torch.arange(len(images))
    for fraction in FRACTIONS:
        taken = (place < round(fraction * side * side)).view(-1, 1, side, side).to(images.device)
        mixed = torch.where(taken, images, blurred) if insert else torch.where(taken, blurred, images)
        answers = [model(mixed[start : start + 128]).softmax(1).cpu() for start in range(0, len(mixed), 128)]
        probabilities.append(torch.cat(answers)[rows, labels.cpu()].double().numpy())
    widths = np.diff(FRACTIONS)
    values = np.array(probabilities)
    return (widths[:, None] * (values[1:] + values[:-1]) / 2).sum(0) / widths.sum()


def blur(images: Tensor) -> Tensor:
    """Images of which the coarse colors are left: averages of an eighth of the side, smoothed."""
    side = images.shape[-1]
    coarse = functional.adaptive_avg_pool2d(images, max(side // 8, 2))
    return functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)


def share_of(values: NDArray[np.float64]) -> Share:
    """The mean of some values with its interval."""
    if not len(values):
        return Share(float("nan"), float("nan"), float("nan"), 0)
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    mean = float(values.mean())
    return Share(mean, mean - half, mean + half, len(values))
