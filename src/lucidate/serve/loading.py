"""From a run's folder to a served version of it. Blocks: for threads, not for the event loop."""

from __future__ import annotations

import hashlib
from pathlib import Path
from time import perf_counter

import numpy as np

from lucidate.core.atomic import sha256
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.models.onnx_session import usable_cores
from lucidate.serve.engine import INPUT, OUTPUT, Engine, Session
from lucidate.serve.graph import open_graph
from lucidate.serve.model_version import ModelVersion
from lucidate.serve.settings import Settings

# Seconds an image by one thread. A quicker model is served best by one thread, the other cores reading requests: of the
# compact network at 16 connections, 2,474 requests a second rather than 2,023 by two (bench/serving.py).
LONG = 0.003
WATCHED = (  # what a version is made from
    "run.json",
    "weights.safetensors",
    "predictions/validation.parquet",
    "predictions/validation-one-view.parquet",
)


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


def load(name: str, version: int, run: RunDir, settings: Settings) -> ModelVersion:
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
