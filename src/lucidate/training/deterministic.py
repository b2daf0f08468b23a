"""The same bits each time: how torch is set while a model trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def deterministic() -> Iterator[None]:
    """Reproducible kernels, and torch's global generators borrowed and given back."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    choices: Any = torch.utils.deterministic  # its one attribute is not declared
    filling = choices.fill_uninitialized_memory
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        # Warn only: CUDA has no deterministic version of a few operations, and a run there is better than none.
        torch.use_deterministic_algorithms(True, warn_only=True)
        # It would also fill every new tensor, to show up reads of memory that nobody wrote: a pass over it each time.
        choices.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            choices.fill_uninitialized_memory = filling
