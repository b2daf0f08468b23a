"""A graph from elsewhere is asked for the first time in a process of its own, which ends whatever the graph does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from graphs import doubling, endless, graph, logits, write_toml
from lucidate.models import onnx_session
from lucidate.models.onnx_session import Unanswered, rehearse

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("make", [endless, partial(doubling, times=30)])
def test_what_never_ends_is_one_line(make: Callable[[Path], Path], tmp_path: Path) -> None:
    write_toml(make(tmp_path / "m.onnx"))
    before = sorted(tmp_path.iterdir())
    command = [sys.executable, "-m", "lucidate", "predict", str(tmp_path / "m.onnx"), "photo.png"]
    done = subprocess.run(
        command,
        env={**os.environ, "LUCIDATE_TRIAL_SECONDS": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "m.onnx: expected a graph that answers" in done.stderr
    assert "no answer within 2 s" in done.stderr
    assert "LUCIDATE_TRIAL_SECONDS" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("length", [None, 1, 3, 4])
def test_what_ends_answers_as_it_does_elsewhere(length: int | None, tmp_path: Path) -> None:
    content = graph(tmp_path / "m.onnx", shape=(length or "n", 3, 8, 8)).read_bytes()
    answers = rehearse(content, IMAGES, input="images", length=length)
    np.testing.assert_allclose(answers, logits(IMAGES), rtol=1e-4, atol=1e-5)
    small = rehearse(doubling(tmp_path / "d.onnx", times=3).read_bytes(), IMAGES, input="images", length=None)
    np.testing.assert_allclose(small, IMAGES.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_what_refuses_is_quoted(tmp_path: Path) -> None:
    content = graph(tmp_path / "m.onnx").read_bytes()
    with pytest.raises(Unanswered, match=r"Got invalid dimensions") as caught:
        rehearse(content, IMAGES[:, :2], input="images", length=None)
    assert "\n" not in str(caught.value)
    with pytest.raises(Unanswered, match=r"INVALID|Protobuf|parse"):
        rehearse(content[:-100], IMAGES, input="images", length=None)


def test_a_process_that_dies_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = graph(tmp_path / "m.onnx").read_bytes()
    program = tmp_path / "dies"
    program.write_text("#!/bin/sh\ncat > /dev/null\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(onnx_session.sys, "executable", str(program))
    with pytest.raises(Unanswered, match=r"ended the process that asked it \(signal 9\)"):
        rehearse(content, IMAGES, input="images", length=None)


def test_nothing_of_the_working_folder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('this is not the numpy that was installed')")
    monkeypatch.chdir(tmp_path)
    content = graph(tmp_path / "m.onnx").read_bytes()
    assert rehearse(content, IMAGES, input="images", length=None).shape == (4, 3)


def test_larger_graphs_have_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = []

    def run(command: list[str], *, timeout: float, **_: object) -> None:
        allowed.append(timeout)
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    for size in (1000, 100_000_000):
        with pytest.raises(Unanswered):
            rehearse(bytes(size), IMAGES, input="images", length=None)
    monkeypatch.setenv("LUCIDATE_TRIAL_SECONDS", "60")
    with pytest.raises(Unanswered, match="within 60 s"):
        rehearse(b"", IMAGES, input="images", length=None)
    assert allowed == pytest.approx([5, 15, 60], abs=0.1)
