from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lucidate.core.run import RunDir


@dataclass(frozen=True)
class Road:
    """A whole run as a user made it: where, what it printed, what it said."""

    folder: Path
    run: RunDir
    result: dict[str, Any]
    log: str


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """`lucidate run digits`, twelve epochs, in a process of its own; the run is <folder>/runs/demo."""
    folder = tmp_path_factory.mktemp("road")
    command = [sys.executable, "-m", "lucidate", "run", "digits", "--set", "train.epochs=12", "--out", "runs/demo"]
    done = subprocess.run([*command, "--json"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Road(folder, RunDir(folder / "runs/demo"), json.loads(done.stdout), done.stderr)
