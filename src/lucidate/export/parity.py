"""Whether a copy is the same model: what it says of the run's test images, against what the run's own model says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lucidate.core.atomic import atomic_write
from lucidate.core.errors import PredictionsError, RunError, SourceError
from lucidate.core.progress import Reporter
from lucidate.core.records import Predictions, RunCard, softmax
from lucidate.core.run import RunDir
from lucidate.data.packed import packed_images, read_rows
from lucidate.data.sources.find import find_source, named
from lucidate.data.sources.source import NamedSource
from lucidate.data.splits import Splits, open_data
from lucidate.predict.infer import with_progress

# Two runtimes sum in another order: what differs by less is the same, a wrong operator is off by far more.
TOLERANCE = 1e-4  # of a probability, on all test images: what people see
NOISE_TOLERANCE = 1e-3  # of the largest value, on a few images of noise, whose values are larger than those of photos
BATCH = 32  # images; six views of them still fit in memory at 224 pixels
TIMED = (1, 32)  # images a call whose time is taken
TIMED_SECONDS, TIMED_CALLS, FEWEST_CALLS = 2.0, 50, 3  # for each
SYNTHETIC = 1_000  # images that are made up where a run's own cannot be had
SEED = 5
LARGEST_GRID = 9  # of the random colors that a smooth image is stretched from

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # images (B, S, S, 3) → probabilities (B, K)


@dataclass(frozen=True)
class Format:
    """A form that runs can be exported in.

    file: its name below a run's exports. write: called with a run, a path and views=, in place of the recipe's where
    they are not None; raises ExportError. open: a file as a function, as its users will run it. packages: those whose
    versions matter. one_view: it cannot hold test-time views.
    """

    file: str
    write: Callable[..., None]
    open: Callable[[Path], Answer]
    packages: tuple[str, ...]
    one_view: bool = False


@dataclass(frozen=True, eq=False)
class EvalImages:
    """Images that a copy is asked about. They are read from `store`, which may lie on disk, as they are needed.

    store: uint8 (N, S, S, 3). rows: (M,) int64 into it. split: "test" or "synthetic". why: of synthetic ones.
    known: (M, K) probabilities that the run holds already, float64; None where it holds none.
    """

    store: NDArray[np.uint8]
    rows: NDArray[np.int64]
    split: str
    known: NDArray[np.float64] | None = None
    why: str = ""


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


def ask(answer: Answer, shown: EvalImages, *, task: str, reporter: Reporter | None = None) -> NDArray[np.float32]:
    """A copy's probabilities (M, K) of all images, in order."""
    firsts = range(0, len(shown.rows), BATCH)
    parts = (answer(read_rows(shown.store, shown.rows[first : first + BATCH])) for first in firsts)
    return np.concatenate(list(with_progress(parts, len(shown.rows), task=task, reporter=reporter)))


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


def is_close(
    answers: NDArray[Any], expected: NDArray[Any], *, tolerance: float = NOISE_TOLERANCE, least: float = 0.0
) -> bool:
    """Whether logits, or maps, are the same to a share of the largest value, or of `least`. NaN never agrees."""
    return bool(np.abs(answers - expected).max() <= tolerance * max(least, float(np.abs(expected).max())))


def latency(answer: Answer, shown: EvalImages) -> dict[str, float]:
    """Milliseconds a call, the median, by the number of images: of whatever else runs beside, so read it as such."""
    found = {}
    for count in TIMED:
        images = read_rows(shown.store, np.resize(shown.rows, count))
        times = call_times({"": answer}, images, seconds=TIMED_SECONDS, most=TIMED_CALLS)[""]
        found[str(count)] = round(float(np.median(times)), 3)
    return found


def call_times(
    answers: Mapping[str, Answer], images: NDArray[np.uint8], *, seconds: float, most: int
) -> dict[str, list[float]]:
    """Milliseconds of calls by name, which take turns: three or more, up to `most`, begun within so many seconds."""
    for answer in answers.values():
        answer(images)  # the first call sets up
    found: dict[str, list[float]] = {name: [] for name in answers}
    first = time.perf_counter()
    for turn in range(most):
        if turn >= FEWEST_CALLS and time.perf_counter() - first >= seconds:
            break
        for name, answer in answers.items():
            start = time.perf_counter()
            answer(images)
            found[name].append(1000 * (time.perf_counter() - start))
    return found


def record(run: RunDir, kind: str, entry: dict[str, Any]) -> None:
    """Put one format's entry into `export/parity.json`; the others stay, but for those of a damaged file."""
    path = run.exports / "parity.json"
    try:
        others = json.loads(path.read_bytes())
    except (OSError, ValueError):
        others = {}
    content = {**(others if isinstance(others, dict) else {}), kind: entry}
    atomic_write(path, json.dumps(content, indent=1, allow_nan=False).encode())


def eval_images(run: RunDir, *, reporter: Reporter | None = None) -> EvalImages:
    """The run's whole test split, or 1,000 made-up images where it cannot be had on this machine; nothing is fetched.

    No label is looked at: this is no opening of the test split.
    """
    card = RunCard.load(run.card)
    known: Predictions | None = None
    with suppress(PredictionsError):  # there is none
        known = Predictions.load(run.predictions("test"))
    try:
        packed = packed_images(card)
        if packed is not None and known is not None and np.array_equal(packed.ids[known.index], known.ids):
            return EvalImages(packed.images, known.index, "test", softmax(known.logits))
        if packed is not None and run.splits.exists():
            return EvalImages(packed.images, Splits.load(run.splits).test, "test")
        named_source = named(card.data.source)
        embedded = named_source is not None and named_source.fetch is NamedSource.fetch
        nearby = (card.data.path and Path(card.data.path).exists()) or find_source(card.data.source)
        if not nearby and not embedded:  # opening them would begin with a download
            raise SourceError(f"the run's images ({card.data.source}) are not on this machine")
        data = open_data(run, reporter=reporter)
        pack = data.pack
        if known is not None and np.array_equal(pack.ids[known.index], known.ids):
            return EvalImages(pack.images, known.index, "test", softmax(known.logits))
        return EvalImages(pack.images, data.splits.test, "test")
    except (SourceError, RunError, IndexError) as error:
        store = synthetic_images(card.data.image_size)
        return EvalImages(store, np.arange(len(store)), "synthetic", why=str(error))


def synthetic_images(size: int, count: int = SYNTHETIC) -> NDArray[np.uint8]:
    """Images (count, size, size, 3), the same each time: noise, and smooth fields of colors, half of each."""
    generator = np.random.default_rng(SEED)
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    for row in range(0, count, 2):
        grid = generator.integers(2, min(LARGEST_GRID, size) + 1)
        colors = torch.from_numpy(generator.random((1, 3, grid, grid)) * 255)
        smooth = torch.nn.functional.interpolate(colors, (size, size), mode="bilinear", align_corners=True)
        images[row] = smooth[0].permute(1, 2, 0).round().byte().numpy()
    return images
