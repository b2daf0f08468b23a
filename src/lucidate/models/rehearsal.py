"""A stranger's graph, asked for the first time: in a process of its own, which is ended where the graph does not end.

A graph may hold loops, and functions within functions, that a file of a few hundred bytes lets run for ever, or fill
the memory, within ONNX Runtime, where nothing in the same process can stop them.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from lucidate.core.text import one_line
from lucidate.models.session import open_session, run_in_parts

SECONDS = 5.0  # for a small graph to start and answer; honest ones take half a second
SECONDS_PER_BYTE = 1e-7  # more for a large one: 10 s for 100 MB
LONGER = "LUCIDATE_TRIAL_SECONDS"  # in the environment: so many seconds in place of these
GIBIBYTE = 1 << 30
REFUSED = 3  # exit status of the process where the graph itself is at fault


class Unanswered(Exception):
    """A graph that gave no answer; the message says why, in one line."""


def rehearse(content: bytes, images: NDArray[np.generic], *, input: str, length: int | None) -> NDArray[np.float32]:
    """The first output (B, K) of a graph for images as it takes them, computed by another process.

    length: of its batches, where that is fixed. Raises Unanswered for a graph that refuses, crashes, needs more memory
    than half of this machine's, or more than 5 s and 0.1 s for each of its megabytes.
    """
    seconds = _seconds(len(content))
    given = io.BytesIO()
    np.savez(given, images=images, graph=np.frombuffer(content, np.uint8), length=length or 0, input=input)
    # -P: no file of the folder that this is called in is taken for a module.
    command = [sys.executable, "-P", "-m", "lucidate.models.rehearsal", str(seconds)]
    try:
        done = subprocess.run(command, input=given.getbuffer(), capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise Unanswered(
            f"it gave no answer within {seconds:.0f} s, so its loops or functions may never end; where it is only "
            f"slow, set {LONGER} to more seconds"
        ) from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [""]
        said = (
            lines[-1][:200] if done.returncode == REFUSED else f"it ended the process that asked it ({lines[-1]:.80})"
        )
        raise Unanswered(
            said if done.returncode > 0 else f"it ended the process that asked it (signal {-done.returncode})"
        )
    answers: NDArray[np.float32] = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return answers


def _seconds(size: int) -> float:
    with suppress(KeyError, ValueError):
        return max(1.0, float(os.environ[LONGER]))
    return SECONDS + SECONDS_PER_BYTE * size


def _main() -> int:
    """What the other process does: images and a graph from standard input, answers to standard output."""
    seconds = float(sys.argv[1])
    given = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    content = given["graph"].tobytes()
    _bound(seconds, 8 * len(content))
    try:
        session = open_session(content)
        (answers,) = run_in_parts(
            session, given["images"], input=str(given["input"]), length=int(given["length"]) or None
        )
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
    """Let the system end this process should its parent be gone, and refuse it more memory than half of the machine's.

    Does nothing where the system has no such limits.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = os.cpu_count() or 1
    for kind, limit in (
        (resource.RLIMIT_CPU, int(seconds * cores) + 1),
        (resource.RLIMIT_AS, max(memory // 2, least + 4 * GIBIBYTE)),
    ):
        _, most = resource.getrlimit(kind)
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


if __name__ == "__main__":
    sys.exit(_main())
