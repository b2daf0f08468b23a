"""Processes that train one model together, started by torchrun: what one process does, in the same words.

Lightning Fabric brings them up and averages gradients. A batch of the recipe is shared among them, and whatever
depends on the whole batch (BatchNorm's statistics, dropout, augmentation) is computed as one process would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lucidate.core.errors import LucidateError, RunError
from lucidate.core.machine import processes
from lucidate.core.text import one_line
from lucidate.training.sync_layers import BatchPart, sync_layers

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOST_SECONDS = 45.0  # without a sign of life, after which a peer counts as lost


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
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """What to call in place of `model`, which must be in the training's shape, so that gradients are averaged."""
        if not self._fabric:
            return model
        # Not fabric.setup_module, which would bring inputs to a precision of its own: the loop has chosen one.
        wrapped: nn.Module = self._fabric.strategy.setup_module(model)
        return wrapped

    def sync_layers(self, model: nn.Module) -> None:
        """Let layers that look at the whole batch look at all processes' parts."""
        sync_layers(model, self.batch_part, alone=self.size == 1)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self._fabric:
            values = values.clone()
            torch.distributed.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0) if self._fabric else flag

    def broadcast(self, content: bytes) -> bytes:
        """The leader's bytes, in every process; what others pass is not used."""
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
            f"{fabric.global_rank} was lost or failed ({_line(error)}); what was saved is whole: "
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
    # Layers that are shared hold the same values already. The option's name depends on torch's version.
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
        raise RunError(f"torchrun: expected processes that find each other, received {_line(error)}") from None
    return fabric


def _line(error: Exception) -> str:
    return one_line(error)
