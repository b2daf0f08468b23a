"""What every test may rely on: a cache of its own session, no reach for the user's; and a browser, if it asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
