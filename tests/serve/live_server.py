"""A server on a real socket, inside the tests' own process; and what talks to it, byte by byte where that matters."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from numpy.typing import NDArray
from PIL import Image

from fakes import NAMES
from lucidate.core.recipe import Recipe
from lucidate.core.records import DataCard, ModelCard, Results, RunCard, SplitCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.models.build import build
from lucidate.models.checkpoint import load_model, save_weights
from lucidate.serve.app import make_app
from lucidate.serve.http_protocol import http_protocol
from lucidate.serve.repository import Repository
from lucidate.serve.settings import Settings

SIDE = 32
PREPROCESS = Preprocess(SIDE, (0.5, 0.45, 0.4), (0.25, 0.25, 0.25))


def make_run(folder: Path, *, seed: int = 0) -> RunDir:
    """A compact network of random weights, as a run that has ended: different images get clearly different answers."""
    run = RunDir(folder)
    if run.card.exists():
        return run
    recipe = Recipe()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(recipe.model, len(NAMES), image_size=SIDE)
    model.eval()
    seen = PREPROCESS.normalize(torch.from_numpy(np.stack([photo(number) for number in range(64)])))
    with torch.no_grad():  # logits of a spread of 2 around 0: all classes are predicted, with all confidences
        layer = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        layer.weight.mul_(2 / model(seen).std(0)[:, None])
        layer.bias.sub_(model(seen).mean(0))
    RunCard(
        status="finished",
        name=folder.name,
        created="2026-01-02T03:04:05+00:00",
        seed=seed,
        recipe=recipe,
        data=DataCard(
            source="photos",
            path=None,
            dataset="photos",
            pack="0" * 64,
            images=9,
            image_size=SIDE,
            flips=True,
            set_aside=(),
        ),
        classes=NAMES,
        split=SplitCard(scheme="official", requested="official", sizes={}),
        preprocess=PREPROCESS.as_dict(),
        model=ModelCard(name="compact", options={}, parameters=1, values=1),
        results=Results(val_accuracy=0.5),
        versions={},
        hardware={},
        threads=1,
        commit=None,
        command="lucidate run",
        notes=("made for a test",),
    ).save(run.card)
    save_weights(model, run.weights)
    return run


def expected(run: RunDir, pixels: NDArray[np.uint8], *, temperature: float = 1.0) -> NDArray[np.float64]:
    """What a server should say of pixels (32, 32, 3), by torch: (K,) probabilities."""
    with torch.inference_mode():
        logits = _model(run)(PREPROCESS.normalize(torch.from_numpy(pixels.copy())[None]))[0]
    return (logits.double() / temperature).softmax(0).numpy()


@cache
def _model(run: RunDir) -> torch.nn.Module:
    return load_model(run)


def photo(seed: int = 0, *, height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """Colored noise with some large shapes."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 200, (4, 4, 3)).repeat(-(-height // 4), 0).repeat(-(-width // 4), 1)
    return (coarse[:height, :width] + generator.integers(0, 56, (height, width, 3))).astype(np.uint8)


def encoded(pixels: NDArray[Any], format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The one form of an error, and nothing of the server's inside."""
        content = self.json
        assert set(content) == {"error"}, content
        assert self.headers["content-type"] == "application/json"
        for inside in ("Traceback", ".py", "/work", "lucidate."):
            assert inside not in content["error"]
        return content["error"]

    @property
    def best(self) -> dict[str, Any]:
        return self.json["predictions"][0]["classes"][0]


@dataclass
class Running:
    """A server that runs."""

    port: int
    repository: Repository
    server: uvicorn.Server
    loop: asyncio.AbstractEventLoop
    log_lines: list[dict[str, Any]] = field(default_factory=list)

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def truth(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """What it should say of pixels (32, 32, 3), by torch: (K,) calibrated probabilities."""
        served = self.repository.get()
        return expected(served.run, pixels, temperature=served.calibration.temperature)

    def predict(self, image: bytes, query: str = "", **headers: str) -> Reply:
        return self.ask(f"/v1/predict{query}", image, headers={k.replace("_", "-"): v for k, v in headers.items()})

    @contextmanager
    def connection(self) -> Iterator[Line]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as raw:
            yield Line(raw)

    def said(self, identity: str) -> dict[str, Any]:
        """The log's line about a request, which comes when it has ended."""
        wait_until(lambda: any(line["id"] == identity for line in self.log_lines))
        return next(line for line in self.log_lines if line["id"] == identity)


@dataclass(frozen=True)
class Line:
    """A connection, used as no client should."""

    raw: socket.socket

    def send(self, content: bytes) -> None:
        self.raw.sendall(content)

    def reply(self) -> Reply:
        """One answer; the connection stays."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.raw.recv(1)
            if not byte:
                raise EOFError(head)
            head += byte
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = b""
        while len(body) < int(headers["content-length"]):
            body += self.raw.recv(int(headers["content-length"]) - len(body))
        return Reply(int(first.split()[1]), headers, body)

    def closed(self) -> bool:
        """Whether the other side closes the connection; waits for it."""
        try:
            while self.raw.recv(65_536):
                pass
        except TimeoutError:
            return False
        except ConnectionResetError:
            pass
        return True


@contextmanager
def running(settings: Settings, runs: Mapping[str, RunDir]) -> Iterator[Running]:
    """A server of these runs on a port of its own, until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    started: list[Running] = []
    failed: list[BaseException] = []
    ready = threading.Event()

    async def main() -> None:
        repository = Repository({name: run.path for name, run in runs.items()}, settings)
        try:
            for name in runs:
                await repository.load(name)
        except BaseException as error:
            failed.append(error)
            ready.set()
            return
        config = uvicorn.Config(
            make_app(settings, repository),
            http=http_protocol(settings),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
        )
        server = _Server(config)
        started.append(Running(listener.getsockname()[1], repository, server, asyncio.get_running_loop()))
        asyncio.get_running_loop().call_later(0.05, ready.set)
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="server")
    thread.start()
    try:
        assert ready.wait(120)
        if failed:
            raise failed[0]
        with _listening(started[0]):
            yield started[0]
    finally:
        if started:
            started[0].server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they belong to the tests' main thread


@contextmanager
def _listening(server: Running) -> Iterator[None]:
    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            server.log_lines.append({**getattr(record, "fields", {}), "failure": record.exc_info})

    logger = logging.getLogger("lucidate.serve")
    before = logger.level, logger.propagate
    handler = Listener()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Fails where it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
