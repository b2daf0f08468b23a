"""Models by name, each in one current version; a new version takes over between two requests, never within one.

A request holds the version that it began with. The one that was replaced goes on until the last such request lets go
of it: nobody has to wait for it, and nothing is closed under it.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np

from lucidate.core.atomic import sha256
from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.models.onnx_session import usable_cores
from lucidate.serve.engine import INPUT, OUTPUT, Engine, Session
from lucidate.serve.errors import BadRequest, NotFound, NotReady
from lucidate.serve.graph import open_graph
from lucidate.serve.model_version import ModelVersion
from lucidate.serve.settings import NAME, Settings

AT_ONCE = 2  # models that are loaded at a time: each may need a core and a second copy of its weights
# Seconds an image by one thread. A quicker model is served best by one thread, the other cores reading requests: of the
# compact network at 16 connections, 2,474 requests a second rather than 2,023 by two (bench/serving.py).
LONG = 0.003
WATCHED = (  # what a version is made from
    "run.json",
    "weights.safetensors",
    "predictions/validation.parquet",
    "predictions/validation-one-view.parquet",
)

Condition = Literal["LOADING", "READY", "UNAVAILABLE"]


@dataclass(frozen=True)
class Entry:
    """A model as the repository's index shows it. version: the current, or last, one; "" before the first."""

    name: str
    condition: Condition
    version: str = ""
    reason: str = ""


class Repository:
    """The models that were named at the start; none can be added later, since a request names no path.

    runs: name → folder, in the order they were given. Nothing is loaded before `load`.
    """

    def __init__(self, runs: Mapping[str, Path], settings: Settings) -> None:
        self._runs = dict(runs)
        self._settings = settings
        self._served: dict[str, ModelVersion] = {}
        self._entries = {name: Entry(name, "UNAVAILABLE", reason="not loaded yet") for name in runs}
        self._locks = {name: asyncio.Lock() for name in runs}
        self._unloaded: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """In the order they were given; the first is what routes without a model's name mean."""
        return tuple(self._runs)

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
        entry = self._entries.get(name) if NAME.fullmatch(name) else None
        if entry is None:
            raise NotFound(f"model: expected one of {', '.join(self.names)}, received another name")
        if served is None and entry.condition == "LOADING":
            raise NotReady(f"model {name} is being loaded", headers={"Retry-After": "1"})
        if served is None:
            raise NotFound(f"model {name} is not loaded")
        raise NotFound(f"version: expected {served.version}, the current one of {name}, received another")

    def index(self) -> tuple[Entry, ...]:
        return tuple(self._entries.values())

    async def load(self, name: str) -> ModelVersion:
        """The model as its folder now holds it: a new version where its files differ from the current one's.

        The current version answers meanwhile, and stays where loading fails.
        Raises NotFound, BadRequest with the reason for which it cannot be loaded.
        """
        lock = self._locks.get(name)
        if lock is None:
            raise NotFound(f"model: expected one of {', '.join(self.names)}, received another name")
        async with lock:
            before = self._entries[name]
            if name not in self._served:
                self._entries[name] = replace(before, condition="LOADING", reason="")
            try:
                served = await _in_thread(lambda: self._fresh(name, int(before.version or 0)))
            except BaseException as error:
                still = name in self._served
                reason = str(error) if isinstance(error, LucidateError) else "loading failed"
                self._entries[name] = replace(
                    before, condition="READY" if still else "UNAVAILABLE", reason="" if still else reason
                )
                if isinstance(error, LucidateError):
                    raise BadRequest(f"model {name} cannot be loaded: {error}") from error
                raise
            self._served[name] = served
            self._unloaded.discard(name)
            self._entries[name] = Entry(name, "READY", served.version)
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
        if name not in self._runs:
            raise NotFound(f"model: expected one of {', '.join(self.names)}, received another name")
        async with self._locks[name]:
            self._unloaded.add(name)
            if self._served.pop(name, None) is not None:
                self._entries[name] = replace(self._entries[name], condition="UNAVAILABLE", reason="unloaded")

    async def drain(self) -> None:
        """Return once everything that was admitted is answered."""
        for served in self:
            await served.engine.drain()


async def _in_thread(work: Callable[[], ModelVersion]) -> ModelVersion:
    """As `asyncio.to_thread`, by a thread that nobody waits for when the server ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[ModelVersion] = loop.create_future()

    def tell(served: ModelVersion | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if served is not None:
            done.set_result(served)
        elif error is not None:
            done.set_exception(error)

    def run() -> None:
        served, failure = None, None
        try:
            served = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, served, failure)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return await done


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
        digest.update(f"{name}:".encode())
        if file.is_file():
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def load_version(name: str, version: int, run: RunDir, settings: Settings) -> ModelVersion:
    """A version that is ready: its graph open, warmed up, its calibration read. Raises LucidateError."""
    from lucidate.serve.calibration import calibration_of_run
    from lucidate.serve.drift import Drift

    card = RunCard.load(run.card)
    found = fingerprint(run, settings)  # before the files are read: what changes meanwhile is another version
    weights = sha256(run.weights)
    size = card.data.image_size
    session = open_session(run, size, settings)
    warm_up(session, size, settings.max_batch)
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
    """The best of three."""
    best = float("inf")
    for _ in range(4):  # the first one plans
        begun = perf_counter()
        session.run((OUTPUT,), {INPUT: np.zeros((1, size, size, 3), np.uint8)})
        best = min(best, perf_counter() - begun)
    return best


def warm_up(session: Session, size: int, max_batch: int) -> None:
    """Let a session plan its memory, so that no client waits for it."""
    for count in (max_batch, 1, 1):
        session.run((OUTPUT,), {INPUT: np.zeros((count, size, size, 3), np.uint8)})
