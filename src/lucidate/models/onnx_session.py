"""ONNX Runtime: sessions set up for machines whose cores are shared, a graph as a predictor, and its first call.

A stranger's graph may hold loops, and functions within functions, that a file of a few hundred bytes lets run for ever,
or fill the memory, within ONNX Runtime, where nothing in the same process can stop them: it is asked for the first time
in a process of its own, which is ended where the graph does not end.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lucidate.core.errors import RunError, raised_as
from lucidate.core.text import one_line

QUIET = 3  # of ONNX Runtime's log levels: errors alone
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # "quota period" in microseconds, or "max period"
SECONDS = 5.0  # for a small graph to start and answer; honest ones take half a second
SECONDS_PER_BYTE = 1e-7  # more for a large one: 10 s for 100 MB
LONGER = "LUCIDATE_TRIAL_SECONDS"  # in the environment: so many seconds in place of these
GIBIBYTE = 1 << 30
REFUSED = 3  # exit status of the process where the graph itself is at fault


class OnnxPredictor:
    """A graph of ours as a `Predictor`: all is inside it. views: the test-time views that these are."""

    batch_size = 32  # more images a call leave the cache and gain nothing

    def __init__(self, model: Path | bytes, *, threads: int | None = None) -> None:
        self.session = open_session(model, threads=threads)
        self.about: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.views = self.about.get("views", "one")
        self._input = self.session.get_inputs()[0].name

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.session.run(["logits"], {self._input: images})[0]
        return logits

    def start(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self(images)

    def collect(self, started: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate(started)

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: ARG002
        raise RunError("embed: expected a run asked by torch, received an ONNX graph, which gives logits alone")


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
    where, source = ("the model", model) if isinstance(model, bytes) else (str(model), str(model))
    with raised_as(RunError, f"{where}: expected a graph that ONNX Runtime can run, received one that it cannot"):
        # Its own fallback would print to standard output, and try the same once more.
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def run_in_parts(
    session: onnxruntime.InferenceSession, images: NDArray[Any], *, input: str, length: int | None
) -> list[NDArray[np.float32]]:
    """Outputs (B, …) for images (B, …), in as many calls as are needed; length: of batches, if fixed."""
    length = length or len(images)
    parts = []
    for start in range(0, len(images), length):
        batch = images[start : start + length]
        count = len(batch)
        if count < length:
            batch = np.concatenate([batch, np.zeros((length - count, *batch.shape[1:]), batch.dtype)])
        answers = session.run(None, {input: batch})
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


class Unanswered(Exception):
    """A graph that gave no answer; the message says why, in one line."""


def rehearse(content: bytes, images: NDArray[np.generic], *, input: str, length: int | None) -> NDArray[np.float32]:
    """The first output (B, K) of a graph for images as it takes them, computed by another process.

    length: of its batches, where that is fixed. Raises Unanswered for a graph that refuses, crashes, needs more memory
    than half of this machine's, or more than 5 s and 0.1 s for each of its megabytes.
    """
    seconds = SECONDS + SECONDS_PER_BYTE * len(content)
    with suppress(KeyError, ValueError):
        seconds = max(1.0, float(os.environ[LONGER]))
    given = io.BytesIO()
    np.savez(given, images=images, graph=np.frombuffer(content, np.uint8), length=length or 0, input=input)
    # -P: no file of the folder that this is called in is taken for a module.
    command = [sys.executable, "-P", "-m", "lucidate.models.onnx_session", str(seconds)]
    try:
        done = subprocess.run(command, input=given.getbuffer(), capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise Unanswered(
            f"it gave no answer within {seconds:.0f} s, so its loops or functions may never end; where it is only "
            f"slow, set {LONGER} to more seconds"
        ) from None
    if done.returncode:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        how = f"({last:.80})" if done.returncode > 0 else f"(signal {-done.returncode})"
        refused = done.returncode == REFUSED
        raise Unanswered(last[:200] if refused else f"it ended the process that asked it {how}")
    answers: NDArray[np.float32] = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return answers


def _main() -> int:
    """What the other process does: images and a graph from standard input, answers to standard output."""
    seconds = float(sys.argv[1])
    given = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    content = given["graph"].tobytes()
    _bound(seconds, 8 * len(content))
    try:
        session = open_session(content)
        length = int(given["length"]) or None
        (answers,) = run_in_parts(session, given["images"], input=str(given["input"]), length=length)
    except MemoryError:
        print("it needs more memory than there is for it", file=sys.stderr)
        return REFUSED
    except Exception as error:  # the runtime's exceptions have no common base but this one
        print(one_line(error).rpartition("one that it cannot: ")[2][:160], file=sys.stderr)
        return REFUSED
    np.save(sys.stdout.buffer, answers, allow_pickle=False)
    sys.stdout.buffer.flush()
    return 0


def _bound(seconds: float, least: int) -> None:
    """Limit the time of this process, should its parent be gone, and its memory to half of the machine's."""
    try:
        import resource
    except ImportError:  # Windows
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    processor, space = int(seconds * (os.cpu_count() or 1)) + 1, max(memory // 2, least + 4 * GIBIBYTE)
    for kind, limit in ((resource.RLIMIT_CPU, processor), (resource.RLIMIT_AS, space)):
        _, most = resource.getrlimit(kind)
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


if __name__ == "__main__":
    sys.exit(_main())
