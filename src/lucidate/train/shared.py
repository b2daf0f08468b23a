"""Layers that look at a whole batch, for a batch whose parts lie in several processes.

With them, a training in two processes takes the steps that one would take. torch has a synchronized BatchNorm for
accelerators only; this one runs anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass
class Place:
    """Which part of the current batch this process holds; the loop moves it on at each step."""

    whole: int = 0
    part: slice = field(default_factory=lambda: slice(None))


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d with the statistics of all processes' parts."""

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        values = features if features.dtype == torch.float64 else features.float()
        count = torch.tensor([float(values.numel() // values.shape[1])], device=values.device, dtype=values.dtype)
        sums = _sum(torch.cat([values.sum((0, 2, 3)), count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centered = values - mean[:, None, None]
        # A second pass over the data, since the mean of squares less the squared mean would cancel digits.
        variance = _sum(centered.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None  # as `share_layers` makes them
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)


class SharedDropout(nn.Dropout):
    """Dropout that draws for the whole batch and keeps its part, so that masks do not depend on the processes."""

    place: Place

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or not self.p:
            return features
        keep = torch.empty((self.place.whole, *features.shape[1:]), dtype=torch.bool, device=features.device)
        if features.ndim == 4:  # masks are drawn in memory order, and images lie in channels_last
            keep = keep.contiguous(memory_format=torch.channels_last)
        keep.bernoulli_(1 - self.p)
        return features * keep[self.place.part] / (1 - self.p)


def share_layers(model: nn.Module, place: Place) -> None:
    """Exchange BatchNorm2d and Dropout for their shared kinds, in place; weights and their names stay."""
    for name, child in model.named_children():
        if type(child) is nn.BatchNorm2d and child.track_running_stats and child.momentum is not None:
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
            shared.weight, shared.bias = child.weight, child.bias
            for buffer, value in child.named_buffers():
                setattr(shared, buffer, value)
            setattr(model, name, shared.train(child.training))
        elif type(child) is nn.Dropout:
            dropout = SharedDropout(child.p)
            dropout.place = place
            setattr(model, name, dropout.train(child.training))
        else:
            share_layers(child, place)


class _Sum(torch.autograd.Function):
    """The sum over all processes; each one's gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total
