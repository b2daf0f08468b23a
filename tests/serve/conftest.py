from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live_server import SIDE, encoded, expected, make_run, photo
from numpy.typing import NDArray
from servers import Server, in_process, served
from starlette.testclient import TestClient

from fakes import NAMES
from lucidate.core.records import Predictions
from lucidate.core.run import RunDir
from lucidate.serve.graph import open_graph


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the embedded digits, two epochs: not good, but a real one. Not to be written into."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    command = [sys.executable, "-m", "lucidate", "train", "digits", "--set", "train.epochs=2", "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that no training made; its predictions are far too sure, so that it has a temperature to serve with."""
    run = make_run(tmp_path_factory.mktemp("untrained") / "photos")
    labels = np.random.default_rng(0).integers(0, 10, 400)
    logits = np.random.default_rng(1).normal(0, 6, (400, 10))
    logits[np.arange(400), labels] += 6
    Predictions(
        ids=np.array([f"validation/{row}" for row in range(400)]),
        index=np.arange(400),
        labels=labels,
        logits=logits.astype(np.float32),
        class_names=NAMES,
        dataset="photos",
        split="validation",
        model="compact",
    ).save(run.predictions("validation"))
    open_graph(run, views="one", int8=False)  # takes seconds, which copies of the run then need not
    return run


@pytest.fixture(scope="session")
def server(untrained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server, with the model "photos", for all tests that leave it as it was."""
    with served(untrained.path, log=tmp_path_factory.mktemp("log") / "server.log") as started:
        yield started


@pytest.fixture(scope="session")
def client(untrained: RunDir) -> Iterator[TestClient]:
    """The application in this process, with the model "photos"."""
    found, _ = in_process({"photos": untrained.path})
    with found:
        yield found


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    """(12, S, S, 3): images of the model's size."""
    assert SIDE == 32
    return np.stack([photo(seed) for seed in range(12)])


@pytest.fixture(scope="session")
def png(pixels: NDArray[np.uint8]) -> bytes:
    """The first of them, encoded without loss."""
    return encoded(pixels[0])


@pytest.fixture(scope="session")
def truth(untrained: RunDir, pixels: NDArray[np.uint8], client: TestClient) -> NDArray[np.float64]:
    """(12, 10): what is to be answered, by torch and the temperature that the model says it serves with."""
    temperature = client.get("/v1/models").json()[0]["temperature"]
    assert abs(temperature - 1) > 0.2
    return np.stack([expected(untrained, one, temperature=temperature) for one in pixels])
