"""Processes that train one model together take the steps that one process takes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from fakes import TwoLayers, colored_batches
from lucidate.core.records import History, RunCard
from lucidate.data.batches import part_of
from lucidate.training.distributed import BatchPart, SyncedBatchNorm, SyncedDropout, sync_layers

QUICK = ["--set", "train.epochs=2", "--set", "train.precision=float64"]
ENDS = 60.0  # seconds within which a process must end that lost its peer


def alone(out: Path, *options: str) -> None:
    command = [sys.executable, "-m", "lucidate", "train", "digits", "--out", str(out), *options]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def start(out: Path, *options: str, ranks: int = 2) -> list[subprocess.Popen[str]]:
    """The processes that torchrun would start, without it: nobody else ends them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": 0, "OMP_NUM_THREADS": 1}
    command = [sys.executable, "-m", "lucidate", "train", "digits", "--out", str(out), *options]
    return [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **{key: str(value) for key, value in {**shared, "RANK": r, "LOCAL_RANK": r}.items()}},
        )
        for r in range(ranks)
    ]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """A list for processes that must not outlive the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()  # closes its pipes


def lists(out: Path) -> dict[str, list[float]]:
    history = json.loads((out / "history.json").read_text())
    return {key: values for key, values in history.items() if key != "epoch_seconds"}


@pytest.mark.slow
def test_two_processes_under_torchrun_give_the_history_of_one(tmp_path: Path) -> None:
    alone(tmp_path / "one", *QUICK)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "lucidate", "train"]
    done = subprocess.run([*command, "digits", "--out", str(tmp_path / "two"), *QUICK, "--json"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    (answer,) = [line for line in done.stdout.decode().splitlines() if line.startswith("{")]  # the main process's alone
    one, two = lists(tmp_path / "one"), lists(tmp_path / "two")
    for key, values in one.items():
        assert two[key] == pytest.approx(values, abs=1e-6), key
    card = RunCard.load(tmp_path / "two" / "run.json")
    assert json.loads(answer)["val_accuracy"] == card.results.val_accuracy
    assert (card.processes, card.precision, card.status) == (2, "float64", "trained")
    assert History.load(tmp_path / "two" / "history.json").epochs == 2


@pytest.mark.slow
def test_a_lost_peer_ends_in_an_error_and_the_rest_can_be_gone_on_with(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    long = ["--set", "train.epochs=400"]
    started += start(tmp_path / "run", *long)
    wait_for_checkpoint(tmp_path / "run")
    started[1].kill()
    lost = time.monotonic()
    _, errors = started[0].communicate(timeout=ENDS)
    assert time.monotonic() - lost < ENDS
    assert started[0].returncode == 2
    assert "a peer of process 0 was lost" in errors.splitlines()[-1]
    assert "--resume" in errors.splitlines()[-1]

    # Asked to stop, both save at the same step; then they go on.
    started += start(tmp_path / "run", *long, "--resume")
    time.sleep(0.1)
    while "resumed at epoch" not in (line := started[2].stderr.readline() if started[2].stderr else ""):
        assert line, "the main process ended before it resumed"
    for process in started[2:4]:
        process.send_signal(signal.SIGTERM)
    endings = [process.communicate(timeout=ENDS) for process in started[2:4]]
    assert [process.returncode for process in started[2:4]] == [130, 130], endings
    assert "it is saved, go on with" in endings[0][1]

    command = [sys.executable, "-m", "lucidate", "train", "digits", "--out", str(tmp_path / "run"), *long, "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    refused = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert refused.returncode == 2
    assert "expected 2 processes" in refused.stderr


def wait_for_checkpoint(run: Path) -> None:
    deadline = time.monotonic() + 120
    while not list((run / "checkpoints").glob("*/manifest.json")):
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.1)


def test_without_a_folder_for_all_it_is_refused(tmp_path: Path) -> None:
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "lucidate", "train", "digits"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --out: expected a folder for all processes")


@pytest.mark.parametrize("count", [1, 2, 5, 31, 64, 500])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_parts_cover_a_batch_once_and_never_part_partners(count: int, ranks: int) -> None:
    parts = [range(count)[part_of(count, rank, ranks)] for rank in range(ranks)]
    assert [batch_part for part in parts for batch_part in part] == list(range(count))
    assert all(part.start % 2 == 0 for part in parts if part)


def test_parts_of_a_batch_are_augmented_as_in_the_whole() -> None:
    from dataclasses import replace

    from lucidate.core.recipe import AugmentRecipe

    recipe = AugmentRecipe(translate=2, rotation=0.1, cutout=3, mixup=1.0)
    whole = colored_batches(range(59), batch_size=16)
    parts = [replace(whole, rank=rank, ranks=2) for rank in range(2)]
    steps = [dict(batches.shuffled(3, 1, recipe=recipe, flips=True)) for batches in (whole, *parts)]
    for step, batch in steps[0].items():
        together = torch.cat([part[step].images for part in steps[1:]])
        torch.testing.assert_close(together, batch.images, atol=1e-6, rtol=0)
        assert torch.equal(torch.cat([part[step].labels for part in steps[1:]]), batch.labels)
        assert {part[step].whole for part in steps[1:]} == {len(batch.labels)}
        assert {part[step].share for part in steps[1:]} == {batch.share}


def test_shared_layers_keep_weights_and_names() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(0.3)))
    before = model.state_dict()
    parameters = list(model.parameters())
    sync_layers(model, BatchPart(), alone=True)
    assert type(model[1]) is nn.BatchNorm2d
    sync_layers(model, BatchPart(), alone=False)
    assert type(model[1]) is SyncedBatchNorm
    assert type(model[2][0]) is SyncedDropout  # type: ignore[index]
    assert list(model.state_dict()) == list(before)
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), parameters, strict=True))


def test_a_part_of_the_batch_meets_the_whole_batchs_masks() -> None:
    model, batch_part = TwoLayers(), BatchPart(whole=16)
    images = torch.randn(16, 3, 8, 8)
    sync_layers(model, batch_part, alone=True)
    torch.manual_seed(5)
    expected = model(images)
    torch.manual_seed(5)
    batch_part.part = slice(4, 9)
    torch.testing.assert_close(model(images[4:9]), expected[4:9], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(50, 8, 5, 7), (50, 333)])
@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_dropout_drops_its_share_anywhere_and_keeps_the_mean(shape: tuple[int, ...], rate: float) -> None:
    dropout = SyncedDropout(rate)
    dropout.batch_part = BatchPart(whole=50)
    torch.manual_seed(1)
    values = torch.ones(shape, requires_grad=True)
    dropped = dropout(values)
    dropped.sum().backward()
    kept = (dropped > 0).double()
    spread = (rate * (1 - rate) / kept.numel()) ** 0.5
    assert abs(float(kept.mean()) - (1 - rate)) < 4 * spread
    flat = kept.flatten() - kept.mean()
    neighbours = float((flat[1:] * flat[:-1]).mean()) / (rate * (1 - rate))
    assert abs(neighbours) < 4 / kept.numel() ** 0.5  # four values share a random word, and nothing else
    torch.testing.assert_close(dropped[dropped > 0], torch.full((int(kept.sum()),), 1 / (1 - rate)))
    assert torch.equal(values.grad, dropped.detach())
    assert dropout.eval()(values) is values
