from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
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
def road(made_once: Callable[[str, Callable[[Path], None]], Path], tmp_path_factory: pytest.TempPathFactory) -> Road:
    """`lucidate run digits`, twelve epochs, in a process of its own; the run is <folder>/runs/demo.

    Each worker has a copy: tests do stages again in it.
    """

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "lucidate", "run", "digits", "--set", "train.epochs=12"]
        command += ["--set", "data.split=80-10-10", "--out", "runs/demo"]
        done = subprocess.run([*command, "--json"], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (folder / "result.json").write_text(done.stdout)
        (folder / "log.txt").write_text(done.stderr)

    made, folder = made_once("road", make), tmp_path_factory.mktemp("road")
    shutil.copytree(made / "runs", folder / "runs")
    result = json.loads((made / "result.json").read_text())
    return Road(folder, RunDir(folder / "runs/demo"), result, (made / "log.txt").read_text())
