"""What every test may rely on: a cache of its own session, no reach for the user's; and, if it asks, a browser, or
what is made once for all of pytest-xdist's workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

# One thread a process, as there is a worker on every core; torch and NumPy read this when they are first imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",  # a camera that shows a pattern, and nobody is asked
    "--use-fake-device-for-media-stream",
]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Packed stores go to a temporary folder, also in subprocesses that tests start."""
    cache = tmp_path_factory.mktemp("cache")
    before = {name: os.environ.pop(name, None) for name in ("LUCIDATE_CACHE", "LUCIDATE_DATA")}
    os.environ["LUCIDATE_CACHE"] = str(cache)
    yield cache
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Make a folder under a name, once for all workers. Tests do not write into it; they copy it."""
    base = tmp_path_factory.getbasetemp()
    place = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # the workers' folders have one above them

    def make(name: str, write: Callable[[Path], None]) -> Path:
        folder, made = place / f"once-{name}", place / f"once-{name}.made"
        with FileLock(place / f"once-{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed midway
                folder.mkdir()
                write(folder)
                made.touch()
        return folder

    return make


@pytest.fixture(scope="module")  # while it runs, no test of the same thread can run an event loop of its own
def browser() -> Iterator[Any]:
    chromium = os.environ.get("LUCIDATE_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium on PATH and LUCIDATE_CHROMIUM is not set")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()
