"""What every test may rely on: a cache of its own session, and no reach for the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


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
