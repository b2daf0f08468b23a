"""Processes that train one model together, started by torchrun, with the result of one process.

Lightning Fabric starts them and averages gradients. Each takes its part of every batch of the recipe, and whatever
depends on the whole batch (BatchNorm's statistics, dropout, augmentation) is computed as one process would. torch has a
synchronized BatchNorm for accelerators only; the one here runs anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from inspect import signature
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lucidate.core.errors import LucidateError, RunError
from lucidate.core.machine import processes
from lucidate.core.text import one_line

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOST_SECONDS = 45.0  # without a sign of life, after which a peer counts as lost


@dataclass
class BatchPart:
    """Which part of the current batch this process holds; the loop moves it on at each step. whole: 0 outside."""

    whole: int = 0
    part: slice = field(default_factory=lambda: slice(None))


class ProcessGroup:
    """One process: the only one, or one of several."""

    def __init__(self, device: torch.device, fabric: Fabric | None = None) -> None:
        self.device = device
        self._fabric = fabric
        self.rank = fabric.global_rank if fabric else 0
        self.size = fabric.world_size if fabric else 1
        self.batch_part = BatchPart()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reports and writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """What to call in place of `model`, which must be in the training's shape, so that gradients are averaged."""
        if not self._fabric:
            return model
        # Not fabric.setup_module, which would bring inputs to a precision of its own: the loop has chosen one.
        wrapped: nn.Module = self._fabric.strategy.setup_module(model)
        return wrapped

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self._fabric:
            values = values.clone()
            torch.distributed.all_reduce(values)
        return values

    def agreed(self, value: float) -> float:
        """The main process's value."""
        if self.size == 1:
            return value
        return float(self.sum(torch.tensor(value if self.is_main else 0.0, device=self.device)))

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0) if self._fabric else flag

    def broadcast(self, content: bytes) -> bytes:
        """The main process's bytes, in every process; what others pass is not used."""
        if not self._fabric:
            return content
        length = self.sum(torch.tensor(len(content) if self.is_main else 0, device=self.device))
        values = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.is_main and content:
            values.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        torch.distributed.broadcast(values, 0)
        return values.cpu().numpy().tobytes()


@contextmanager
def join_processes(device: torch.device) -> Iterator[ProcessGroup]:
    """The group that torchrun's variables describe, or one process alone; its group ends with the block.

    Raises RunError when a peer is lost.
    """
    if processes()[1] == 1:
        yield ProcessGroup(device)
        return
    fabric = _launch(device)
    try:
        yield ProcessGroup(fabric.device, fabric)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RunError(
            f"training: expected {fabric.world_size} processes to stay together, but a peer of process "
            f"{fabric.global_rank} was lost or failed ({one_line(error)}); what was saved is whole: "
            "start them again with --resume"
        ) from error
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _launch(device: torch.device) -> Fabric:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError:
        raise LucidateError(
            "torchrun: expected lightning-fabric, received an installation without it; pip install lightning-fabric"
        ) from None
    wanted = ("LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    if missing := [name for name in wanted if name not in os.environ]:
        raise LucidateError(
            f"torchrun: expected its variables, received RANK and WORLD_SIZE without {', '.join(missing)}; start with "
            "torchrun"
        )
    per_node = int(os.environ["LOCAL_WORLD_SIZE"])
    if device.type == "cuda" and per_node > torch.cuda.device_count():
        raise LucidateError(
            f"torchrun: expected at most {torch.cuda.device_count()} processes, one a GPU, received {per_node}"
        )
    # Buffers are equal already, since layers are synchronized. The option's name depends on torch's version.
    known = signature(DistributedDataParallel).parameters
    options: dict[str, Any] = {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False,
        # With it, gradients stay in the order in which they are summed, also after a resume; of two, order is nothing.
        "find_unused_parameters": processes()[1] > 2,
    }
    fabric = Fabric(
        accelerator=device.type,
        devices=per_node,
        num_nodes=processes()[1] // per_node,
        strategy=DDPStrategy(
            process_group_backend="nccl" if device.type == "cuda" else "gloo",
            timeout=timedelta(seconds=LOST_SECONDS),
            **options,
        ),
    )
    try:
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise RunError(f"torchrun: expected processes that find each other, received {one_line(error)}") from None
    return fabric


class SyncedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d with the statistics of all processes' parts."""

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        values = features if features.dtype == torch.float64 else features.float()
        count = torch.tensor([float(values.numel() // values.shape[1])], device=values.device, dtype=values.dtype)
        sums = _all_reduce_sum(torch.cat([values.sum((0, 2, 3)), count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centered = values - mean[:, None, None]
        # A second pass over the data, since the mean of squares less the squared mean would cancel digits.
        variance = _all_reduce_sum(centered.square().sum((0, 2, 3))) / count
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
            synced = SyncedBatchNorm(child.num_features, child.eps, child.momentum)
            synced.weight, synced.bias = child.weight, child.bias
            for buffer, value in child.named_buffers():
                setattr(synced, buffer, value)
            setattr(model, name, synced.train(child.training))
        elif type(child) is nn.Dropout:
            dropout = SyncedDropout(child.p)
            dropout.batch_part = batch_part
            setattr(model, name, dropout.train(child.training))
        else:
            sync_layers(child, batch_part, alone=alone)


class _AllReduceSum(torch.autograd.Function):
    """The sum over all processes; each one's gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


def _all_reduce_sum(values: Tensor) -> Tensor:
    total: Tensor = _AllReduceSum.apply(values)  # type: ignore[no-untyped-call]
    return total
