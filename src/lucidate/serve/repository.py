"""Models by name, each in one current version; a new version takes over between two requests, never within one.

A request holds the version that it began with. The one that was replaced goes on until the last such request lets go
of it: nobody has to wait for it, and nothing is closed under it.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import timeit
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lucidate.core.atomic import sha256
from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.models.onnx_session import usable_cores
from lucidate.serve.calibration import Calibration, calibration_of_run
from lucidate.serve.engine import INPUT, OUTPUT, Engine, Session
from lucidate.serve.errors import BadRequest, NotFound, NotReady, RequestError
from lucidate.serve.graph import open_graph
from lucidate.serve.settings import Settings

if TYPE_CHECKING:
    from lucidate.serve.drift import Drift
    from lucidate.serve.explainer import Explainer

AT_ONCE = 2  # models that are loaded at a time: each may need a core and a second copy of its weights
# Seconds an image by one thread. A quicker model is served best by one thread, the other cores reading requests: of the
# compact network at 16 connections, 2,474 requests a second rather than 2,023 by two (bench/serving.py).
LONG = 0.003
TINY = 1e-300  # stands for a probability of 0 in its logarithm, where it counts for nothing
WATCHED = (  # what a version is made from
    "run.json",
    "weights.safetensors",
    "predictions/validation.parquet",
    "predictions/validation-one-view.parquet",
)


@dataclass(frozen=True, eq=False)
class Answers:
    """Of n images. logits: (n, K) float32 as the model gave them. probabilities: (n, K) float64, calibrated."""

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModelVersion:
    """One version of a model, ready to answer: what routes know of it.

    version: a whole number from 1, as text. image_size: pixels a side. fingerprint: of the files it was made from.
    weights: SHA-256 of its weights' file. calibration: what its validation images were like, with the temperature that
    calibrates it. drift: how those that came differ from them.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    image_size: int
    engine: Engine
    run: RunDir
    calibration: Calibration
    drift: Drift
    fingerprint: str
    weights: str

    async def answer(self, images: NDArray[np.uint8], *, timeout: float | None = None) -> Answers:
        """What the model says of images (n, S, S, 3): the one road that every route takes. Raises what `infer` does."""
        if not len(images):
            return Answers(np.empty((0, len(self.classes)), np.float32), np.empty((0, len(self.classes))))
        logits = await self.engine.infer(images, timeout=timeout)
        if not np.isfinite(logits).all():
            raise RequestError("the model's answer is no number (NaN or infinity): its weights are broken")
        probabilities = self.probabilities(logits)
        self.drift.observe(images, probabilities)
        return Answers(logits, probabilities)

    def probabilities(self, logits: NDArray[np.float32], *, calibrated: bool = True) -> NDArray[np.float64]:
        """Softmax of logits, over the temperature unless they are to be as the model gave them: (n, K)."""
        scaled = logits.astype(np.float64) / (self.calibration.temperature if calibrated else 1.0)
        scaled -= scaled.max(axis=1, keepdims=True)
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum(axis=1, keepdims=True)
        return scaled

    @cached_property
    def explainer(self) -> Explainer:
        """Heatmaps of its answers; loads torch when it is first asked for, so ask in a thread."""
        from lucidate.serve.explainer import Explainer

        return Explainer(self.run, self.weights)


def predictions(served: ModelVersion, answers: Answers, *, top: int, calibrated: bool = True) -> list[dict[str, Any]]:
    """One prediction an image. top: how many classes to name, at most. calibrated: else by the logits as they are.

    entropy: nats, 0 to ln K. abstain: whether calibrated confidence, whatever is shown, is below the threshold that
    keeps the risk; None where no such threshold is known. Classes that are equally likely stand in the model's order.
    """
    threshold = served.calibration.threshold
    confidences = answers.probabilities.max(axis=1).tolist()
    probabilities = answers.probabilities if calibrated else served.probabilities(answers.logits, calibrated=False)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top].tolist()
    entropies = -(probabilities * np.log(np.maximum(probabilities, TINY))).sum(axis=1)
    found = []
    rows = zip(probabilities.tolist(), entropies.tolist(), order, confidences, strict=True)
    for row, entropy, best, confidence in rows:
        classes = [{"label": served.classes[k], "index": k, "probability": row[k]} for k in best]
        abstain = None if threshold is None else confidence < threshold
        found.append({"classes": classes, "entropy": max(0.0, entropy), "abstain": abstain})
    return found


@dataclass(frozen=True)
class IndexEntry:
    """A model as the repository's index shows it. version: the current, or last, one; "" before the first."""

    name: str
    version: str
    state: Literal["LOADING", "READY", "UNAVAILABLE"]
    reason: str = ""


class Repository:
    """The models that were named at the start; none can be added later, since a request names no path.

    runs: name → folder, in the order they were given. Nothing is loaded before `load`.
    """

    def __init__(self, runs: Mapping[str, Path], settings: Settings) -> None:
        self.names = tuple(runs)  # the first is what routes without a model's name mean
        self._runs = dict(runs)
        self._settings = settings
        self._served: dict[str, ModelVersion] = {}
        self._entries = {name: IndexEntry(name, "", "UNAVAILABLE", "not loaded yet") for name in runs}
        self._locks = {name: asyncio.Lock() for name in runs}
        self._unloaded: set[str] = set()

    @property
    def ready(self) -> bool:
        """Whether every model answers but those that were unloaded on purpose."""
        return all(name in self._served or name in self._unloaded for name in self._runs)

    def __iter__(self) -> Iterator[ModelVersion]:
        """The current versions."""
        return iter([self._served[name] for name in self._runs if name in self._served])

    def get(self, name: str | None = None, version: str | None = None) -> ModelVersion:
        """The current version of a model; of the first one without a name. Hold on to it while a request lasts.

        Raises NotFound, and NotReady for a model that is being loaded.
        """
        if name is None:
            name = self.names[0]
        served = self._served.get(name)
        if served is not None and (version is None or version == served.version):
            return served
        state = self._entry(name).state
        if served is None and state == "LOADING":
            raise NotReady(f"model {name} is being loaded", headers={"Retry-After": "1"})
        if served is None:
            raise NotFound(f"model {name} is not loaded")
        raise NotFound(f"version: expected {served.version}, the current one of {name}, received another")

    def _entry(self, name: str) -> IndexEntry:
        if name not in self._entries:
            raise NotFound(f"model: expected one of {', '.join(self.names)}, received another name")
        return self._entries[name]

    def index(self) -> list[IndexEntry]:
        return list(self._entries.values())

    async def load(self, name: str) -> ModelVersion:
        """The model as its folder now holds it: a new version where its files differ from the current one's.

        The current version answers meanwhile, and stays where loading fails.
        Raises NotFound, BadRequest with the reason for which it cannot be loaded.
        """
        self._entry(name)
        async with self._locks[name]:
            before = self._entries[name]
            if name not in self._served:
                self._entries[name] = replace(before, state="LOADING", reason="")
            try:
                served = await _in_thread(lambda: self._fresh(name, int(before.version or 0)))
            except BaseException as error:
                known = isinstance(error, LucidateError)
                reason = str(error) if known else "loading failed"
                still = name in self._served
                self._entries[name] = before if still else replace(before, state="UNAVAILABLE", reason=reason)
                if known:
                    raise BadRequest(f"model {name} cannot be loaded: {error}") from error
                raise
            self._served[name] = served
            self._unloaded.discard(name)
            self._entries[name] = IndexEntry(name, served.version, "READY")
            return served

    def _fresh(self, name: str, version: int) -> ModelVersion:
        run = open_served_run(self._runs[name])
        current = self._served.get(name)
        if current is not None and fingerprint(run, self._settings) == current.fingerprint:
            return current
        return load_version(name, version + 1, run, self._settings)

    async def load_all(self) -> None:
        """Load every model, two at a time. Raises LucidateError for the first that cannot be."""
        lanes = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with lanes:
                await self.load(name)

        loads = [asyncio.create_task(one(name)) for name in self._runs]
        try:
            await asyncio.gather(*loads)
        except BadRequest as error:
            raise error.__cause__ or error from None
        finally:
            for load in loads:
                load.cancel()

    async def unload(self, name: str) -> None:
        """Let go of a model; what it has admitted is still answered. Raises NotFound."""
        self._entry(name)
        async with self._locks[name]:
            self._unloaded.add(name)
            if self._served.pop(name, None) is not None:
                self._entries[name] = replace(self._entries[name], state="UNAVAILABLE", reason="unloaded")


async def _in_thread(work: Callable[[], ModelVersion]) -> ModelVersion:
    """As `asyncio.to_thread`, by a thread that nobody waits for when the server ends."""
    done: Future[ModelVersion] = Future()
    done.set_running_or_notify_cancel()  # nobody can cancel it any more

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return await asyncio.wrap_future(done)


# From a run's folder to a version of it. Blocks: for threads, not for the event loop.


def open_served_run(path: Path) -> RunDir:
    """The run that a path means: a run's folder, or somebody's model that is brought into one. Raises LucidateError."""
    if (path / "run.json").exists():
        return RunDir.open(path)
    from lucidate.external.import_model import open_run  # loads torch

    return open_run(path)


def fingerprint(run: RunDir, settings: Settings) -> str:
    """A digest of the files that a version is made from."""
    digest = hashlib.sha256()
    for name in (*WATCHED, *(["export/model.int8.onnx"] if settings.int8 else [])):
        file = run.path / name
        digest.update(f"{name}:{sha256(file) if file.is_file() else ''}".encode())
    return digest.hexdigest()


def load_version(name: str, version: int, run: RunDir, settings: Settings) -> ModelVersion:
    """A version that is ready: its graph open, warmed up, its calibration read. Raises LucidateError."""
    from lucidate.serve.drift import Drift  # loads scipy.stats

    card = RunCard.load(run.card)
    found = fingerprint(run, settings)  # before the files are read: what changes meanwhile is another version
    weights = sha256(run.weights)
    size = card.data.image_size
    session = open_session(run, size, settings)
    for count in (settings.max_batch, 1, 1):  # it plans its memory, so that no client waits for it
        ask_for(session, count, size)
    calibration = calibration_of_run(run, views=settings.views)
    return ModelVersion(
        name=name,
        version=str(version),
        classes=card.classes,
        image_size=size,
        engine=Engine(session, queue_images=settings.queue_images, max_batch=settings.max_batch),
        run=run,
        calibration=calibration,
        drift=Drift(calibration),
        fingerprint=found,
        weights=weights,
    )


def open_session(run: RunDir, size: int, settings: Settings) -> Session:
    """The run's graph, with as many threads as it can use. Raises LucidateError."""
    threads = settings.threads or 1
    session: Session = open_graph(run, views=settings.views, int8=settings.int8, threads=threads)
    if settings.threads is None and usable_cores() > 1 and seconds_an_image(session, size) > LONG:
        session = open_graph(run, views=settings.views, int8=settings.int8, threads=usable_cores())
    return session


def seconds_an_image(session: Session, size: int) -> float:
    """The best of three, after one that plans."""
    return min(timeit.repeat(lambda: ask_for(session, 1, size), number=1, repeat=4))


def ask_for(session: Session, count: int, size: int) -> None:
    session.run((OUTPUT,), {INPUT: np.zeros((count, size, size, 3), np.uint8)})
