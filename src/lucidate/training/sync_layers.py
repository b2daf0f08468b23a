"""Layers that look at a whole batch, also where its parts lie in several processes.

With them, a training in two processes takes the steps that one would take. torch has a synchronized BatchNorm for
accelerators only; this one runs anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass
class BatchPart:
    """Which part of the current batch this process holds; the loop moves it on at each step. whole: 0 outside."""

    whole: int = 0
    part: slice = field(default_factory=lambda: slice(None))


class SyncedBatchNorm(nn.BatchNorm2d):
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
            assert self.running_mean is not None  # as `sync_layers` makes them
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)


class SyncedDropout(nn.Dropout):
    """Dropout that draws for the whole batch and keeps its part, so that masks do not depend on the processes.

    A random word of 64 bits decides on four values, which takes a fifth of the time of torch's own on a CPU; rates are
    rounded to a 65,536th.
    """

    batch_part: BatchPart

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or not self.p:
            return features
        # Outside a training, which says how large its batches are, a batch is whole.
        shape = (self.batch_part.whole or len(features), *features.shape[1:])
        words = torch.empty((prod(shape) + 3) // 4, dtype=torch.int64, device=features.device)
        kept = words.random_(-(2**63), None).view(torch.int16)[: prod(shape)] >= round(self.p * 2**16) - 2**15
        if features.ndim == 4:  # images lie in channels_last, and so do their masks
            batch, channels, height, width = shape
            kept = kept.view(batch, height, width, channels).permute(0, 3, 1, 2)
        else:
            kept = kept.view(shape)
        return features * kept[self.batch_part.part].to(features.dtype).mul_(1 / (1 - self.p))


def sync_layers(model: nn.Module, batch_part: BatchPart, *, alone: bool) -> None:
    """Exchange Dropout, and BatchNorm2d unless `alone`, for their synchronized kinds, in place; names stay."""
    for name, child in model.named_children():
        if not alone and type(child) is nn.BatchNorm2d and child.track_running_stats and child.momentum is not None:
            shared = SyncedBatchNorm(child.num_features, child.eps, child.momentum)
            shared.weight, shared.bias = child.weight, child.bias
            for buffer, value in child.named_buffers():
                setattr(shared, buffer, value)
            setattr(model, name, shared.train(child.training))
        elif type(child) is nn.Dropout:
            dropout = SyncedDropout(child.p)
            dropout.batch_part = batch_part
            setattr(model, name, dropout.train(child.training))
        else:
            sync_layers(child, batch_part, alone=alone)


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
