"""Servers as processes, and the application in this one, for the tests of this folder."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.testclient import TestClient

from lucidate.serve.app import make_app
from lucidate.serve.repository import Repository
from lucidate.serve.settings import Settings
from lucidate.serve.state import Life

PATIENCE = 60.0  # seconds for a server to start, on a machine that has other work


@dataclass(frozen=True)
class Server:
    """A process that serves. log: the file that holds its standard error."""

    process: subprocess.Popen[str]
    url: str
    models: list[str]
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def stop(self, number: signal.Signals = signal.SIGTERM, *, patience: float = 40.0) -> int:
        """Ask it to end; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(patience)


@contextmanager
def served(*runs: str | Path, log: Path, options: tuple[str, ...] = ()) -> Iterator[Server]:
    """`lucidate serve` on a free port, ready; killed at the end, unless it has ended before."""
    command = [sys.executable, "-m", "lucidate", "serve", *map(str, runs), "--port", "0", "--json", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        told: dict[str, Any] = json.loads(line)
        yield Server(process, told["url"], told["models"], log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def in_process(runs: dict[str, Path], **settings: Any) -> tuple[TestClient, Repository]:
    """The whole application, middleware and all, with its models loaded. Use the client as a context manager."""
    chosen = Settings(**settings)
    repository = Repository(runs, chosen)
    asyncio.run(repository.load_all())
    app = make_app(chosen, repository, life=Life(ready=True))
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False), repository


def until(holds: Any, *, patience: float = PATIENCE) -> None:
    """Wait until `holds()`, or fail."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
