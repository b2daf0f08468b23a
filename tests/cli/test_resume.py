"""Killing and stopping the real command."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lucidate.cli.main import main
from lucidate.core.run import RunDir

pytestmark = pytest.mark.slow

SMALL = ["--set", "train.epochs=24", "--set", "model.widths=[8, 16, 16]", "--set", "model.dense=32"]
SMALL += ["--set", "data.split=80-10-10"]  # epochs that are long enough to be stopped within one
TRAIN = ["train", "digits", *SMALL]


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lucidate", *TRAIN, "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(status, standard error) once it has ended."""
    log = process.communicate()[1]
    return process.returncode, log


def refused(capsys: pytest.CaptureFixture[str], out: Path, *options: str, threads: int | None = None) -> str:
    """The line by which the command, in this process, refuses to train there."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with pytest.raises(SystemExit) as ended:
            main([*TRAIN, "--out", str(out), *options])
    finally:
        torch.set_num_threads(before)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until something stands at `path`, or the process has ended."""
    for _ in range(1200):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A training that nobody interrupted."""
    run = RunDir(tmp_path_factory.mktemp("whole") / "run")
    assert end(start(run.path))[0] == 0
    return run


def assert_same(ours: RunDir, theirs: RunDir) -> None:
    assert ours.weights.read_bytes() == theirs.weights.read_bytes()
    histories = [json.loads(run.history.read_text()) for run in (ours, theirs)]
    for history in histories:
        del history["epoch_seconds"]
    assert histories[0] == histories[1]
    assert not ours.checkpoints.exists()  # their work is done


def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path: Path, whole: RunDir) -> None:
    run, generator, kills = RunDir(tmp_path / "run"), random.Random(0), 0
    for _ in range(3):
        process = start(run.path, "--resume")
        wait_for(run.card, process)
        time.sleep(generator.uniform(0.3, 2.5))
        process.kill()
        kills += end(process)[0] == -signal.SIGKILL
    assert kills
    assert end(start(run.path, "--resume"))[0] == 0
    assert_same(run, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(
    tmp_path: Path, whole: RunDir, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path / "run")
    process = start(run.path)
    wait_for(run.checkpoints, process)
    process.send_signal(number)
    status, log = end(process)
    assert status == 130
    last = log.splitlines()[-1]
    assert "interrupted after step" in last
    assert last.endswith("--resume")
    assert len(list(run.checkpoints.iterdir())) >= 1
    # Without the word it is not touched; another recipe, other images or another thread count do not fit.
    for options, threads, words in (
        ([], None, "already holds a run whose training did not end"),
        (["--resume", "--set", "train.lr=0.5"], None, "expected the recipe that the run was started with"),
        (["--resume", "--set", "data.image_size=16"], None, "expected the recipe"),
        (["--resume"], torch.get_num_threads() + 1, f"set OMP_NUM_THREADS={torch.get_num_threads()}"),
    ):
        assert words in refused(capsys, run.path, *options, threads=threads)
        assert not run.weights.exists()
    status, log = end(start(run.path, "--resume"))
    assert status == 0
    assert "resumed at epoch" in log
    assert_same(run, whole)


def test_a_second_trainer_in_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir(tmp_path / "run")
    first = start(run.path)
    try:
        wait_for(run.checkpoints, first)
        assert f"process {first.pid} is writing" in refused(capsys, run.path, "--resume")
        assert first.poll() is None  # the first one goes on
    finally:
        first.kill()
        end(first)
    assert run.card.exists()


def test_a_finished_training_is_not_repeated(whole: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    before = whole.weights.stat().st_mtime_ns
    with pytest.raises(SystemExit) as ended:
        main([*TRAIN, "--out", str(whole.path), "--resume"])
    assert ended.value.code == 0
    assert "epoch" not in capsys.readouterr().err
    assert whole.weights.stat().st_mtime_ns == before


def test_what_would_not_end_in_the_same_bits_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photos / name / f"{number}.png")
    run, data = RunDir(tmp_path / "run"), ["--data", str(photos)]
    process = start(run.path, *data, "--set", "train.epochs=5000")
    wait_for(run.checkpoints, process)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 130

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}

    kept = files()

    def said(*options: str, threads: int | None = None) -> str:
        return refused(capsys, run.path, *data, "--resume", *options, threads=threads)

    long, threads = ["--set", "train.epochs=5000"], torch.get_num_threads()
    assert "expected the recipe that the run was started with" in said()
    assert f"expected {threads} threads" in said(*long, threads=threads + 1)
    Image.fromarray(pixels).save(photos / "cat" / "0.png")
    assert "expected the images that the run was started with (checksum" in said(*long)
    assert files() == kept
