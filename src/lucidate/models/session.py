"""ONNX Runtime, set up for machines whose cores are shared."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lucidate.core.errors import RunError
from lucidate.core.text import one_line

QUIET = 3  # of ONNX Runtime's log levels: errors alone
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # "quota period" in microseconds, or "max period"


def open_session(model: Path | bytes, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A graph ready to run on the processor, each call by `threads` threads (default: the cores that we may use).

    Raises RunError for a file that is no ONNX graph, or one that ONNX Runtime cannot run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    # Threads that wait by spinning take the cores from whoever else has work: 2-3 times slower where cores are shared.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # it would print to standard output, and try the same once more
        )
    except Exception as error:  # its exceptions have no common base but this one
        where = "the model" if isinstance(model, bytes) else str(model)
        reason = one_line(error)
        raise RunError(
            f"{where}: expected a graph that ONNX Runtime can run, received one that it cannot: {reason}"
        ) from None


def run_in_parts(
    session: onnxruntime.InferenceSession, images: NDArray[Any], *, input: str, length: int | None
) -> list[NDArray[np.float32]]:
    """A session's outputs (B, …) for images (B, …), in as many calls as it needs; length: of its batches, if fixed.

    Raises whatever ONNX Runtime makes of a graph.
    """
    length = length or len(images)
    wanted = [one.name for one in session.get_outputs()]
    parts: list[list[NDArray[np.float32]]] = []
    for start in range(0, len(images), length):
        batch = images[start : start + length]
        count = len(batch)
        if count < length:
            batch = np.concatenate([batch, np.zeros((length - count, *batch.shape[1:]), batch.dtype)])
        answers = session.run(wanted, {input: batch})
        parts.append([answer[:count].astype(np.float32, copy=False) for answer in answers])
    return [np.concatenate(column) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True)]


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, or the share that its control group allows, if fewer."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text(encoding="ascii").split()
        return bound if quota == "max" else max(1, min(bound, ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return bound
