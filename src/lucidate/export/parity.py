"""Whether a copy is the same model: its probabilities against torch's, on every test image."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucidate.core.atomic import atomic_write
from lucidate.core.progress import Reporter, Silent
from lucidate.core.run import RunDir
from lucidate.data.store import read_rows
from lucidate.export.eval_images import Shown

TOLERANCE = 1e-4  # of a probability
BATCH = 32  # images; six views of them still fit in memory at 224 pixels
TIMED = (1, 32)  # images a call whose time is taken
TIMED_SECONDS, TIMED_CALLS = 2.0, 50  # at most, for each

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # images (B, S, S, 3) → probabilities (B, K)


@dataclass(frozen=True)
class Parity:
    """How far a copy's answers lie from torch's.

    max_abs_diff: the largest difference of any probability. disagreements: images whose likeliest class is another one.
    ties: those of them where torch itself gave its two likeliest classes probabilities closer than the tolerance, which
    no copy can be asked to keep apart. images, split: what was asked about, "test" or "synthetic".
    """

    max_abs_diff: float
    disagreements: int
    ties: int
    images: int
    split: str
    tolerance: float = TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether it is the same model."""
        return self.max_abs_diff <= self.tolerance and self.disagreements == self.ties


def ask(answer: Answer, shown: Shown, *, task: str, reporter: Reporter | None = None) -> NDArray[np.float32]:
    """A copy's probabilities (M, K) of all images, in order."""
    reporter, total, start = reporter or Silent(), len(shown.rows), time.perf_counter()
    parts = []
    for first in range(0, total, BATCH):
        rows = shown.rows[first : first + BATCH]
        parts.append(answer(read_rows(shown.store, rows)))
        done = min(first + BATCH, total)
        reporter.advance(task, done, total, f"{done / (time.perf_counter() - start):,.0f} images/s")
    return np.concatenate(parts)


def compare(
    answers: NDArray[Any], expected: NDArray[np.float64], *, split: str, tolerance: float = TOLERANCE
) -> Parity:
    """A copy's probabilities (M, K) against torch's. NaN never agrees."""
    differences = np.abs(answers - expected)
    largest = float(differences.max()) if not np.isnan(differences).any() else float("inf")
    other = answers.argmax(axis=1) != expected.argmax(axis=1)
    highest = np.sort(expected, axis=1)[:, -2:]
    tied = other & (highest[:, 1] - highest[:, 0] < tolerance)
    return Parity(largest, int(other.sum()), int(tied.sum()), len(expected), split, tolerance)


def latency(answer: Answer, shown: Shown) -> dict[str, float]:
    """Milliseconds a call, the median, by the number of images: of whatever else runs beside, so read it as such."""
    found = {}
    for count in TIMED:
        images = read_rows(shown.store, np.resize(shown.rows, count))
        answer(images)  # the first call sets up
        times: list[float] = []
        while len(times) < TIMED_CALLS and (len(times) < 3 or sum(times) < TIMED_SECONDS):
            start = time.perf_counter()
            answer(images)
            times.append(time.perf_counter() - start)
        found[str(count)] = round(float(np.median(times)) * 1000, 3)
    return found


def recorded(run: RunDir) -> dict[str, Any]:
    """What `export/parity.json` holds, by format; empty where there is none, or a damaged one."""
    try:
        found = json.loads((run.exports / "parity.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def record(run: RunDir, kind: str, entry: dict[str, Any]) -> None:
    """Put one format's entry into `export/parity.json`; the others stay."""
    content = {**recorded(run), kind: entry}
    atomic_write(run.exports / "parity.json", json.dumps(content, indent=1, allow_nan=False).encode())
