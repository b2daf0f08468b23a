"""A training that was interrupted ends in the same bits as one that was not."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from fakes import Listener, TwoLayers, colored_batches
from lucidate.core.errors import Interrupted, RunError
from lucidate.core.recipe import make_recipe
from lucidate.core.records import History
from lucidate.training import checkpoint
from lucidate.training.checkpoint import Checkpoints
from lucidate.training.loop import Training, train_model

STEPS = 4  # an epoch: 60 images in batches of 16
TRAIN, VALIDATION = range(60), range(60, 90)


def train(
    folder: Path | None, *, stop: Callable[[], bool] = lambda: False, listener: Listener | None = None, **settings: Any
) -> tuple[TwoLayers, History]:
    torch.manual_seed(7)  # the initial weights
    model, listener = TwoLayers(), listener or Listener()
    defaults = {"epochs": 6, "lr": 0.02, "schedule": "plateau", "plateau_patience": 1, "batch_size": 16}
    history = train_model(
        model,
        Training(
            batches=colored_batches(TRAIN),
            validation=colored_batches(VALIDATION),
            recipe=make_recipe({"train": {**defaults, **settings}, "augment": {"rotation": 0.1}}),
            flips=True,
            reporter=listener,
            checkpoints=Checkpoints(folder, reporter=listener) if folder else None,
            stop=stop,
        ),
    )
    return model, history


def after(steps: int) -> Callable[[], bool]:
    """True when asked for the `steps`-th time: once a step, and once more after each epoch."""
    counter = count(1)
    return lambda: next(counter) == steps


def assert_same(ours: tuple[TwoLayers, History], theirs: tuple[TwoLayers, History]) -> None:
    for name, value in theirs[0].state_dict().items():
        assert torch.equal(value, ours[0].state_dict()[name]), name
    for name in ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"):
        assert getattr(ours[1], name) == getattr(theirs[1], name), name


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "muon"])
@pytest.mark.parametrize("stops", [[1], [STEPS], [STEPS + 1], [STEPS + 3], [3, 1, STEPS, 2, 5]])
def test_any_interruptions_end_in_the_same_bits(tmp_path: Path, optimizer: str, stops: list[int]) -> None:
    whole = train(None, optimizer=optimizer)
    for steps in stops:
        with pytest.raises(Interrupted, match=r"interrupted after (step \d of )?epoch \d"):
            train(tmp_path, stop=after(steps), optimizer=optimizer)
    assert_same(train(tmp_path, optimizer=optimizer), whole)


def test_averaged_weights_are_gone_on_with_to_the_same_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"average": 0.8, "restore_best": False, "optimizer": "sgd", "lr": 0.1}
    whole = train(None, **settings)
    for steps in (STEPS + 3, 2):
        with pytest.raises(Interrupted):
            train(tmp_path, stop=after(steps), **settings)
    assert_same(train(tmp_path, **settings), whole)
    plain = train(None, **{**settings, "average": 0.0})
    assert not torch.equal(plain[0].layers[0].weight, whole[0].layers[0].weight)


def test_the_harder_images_are_the_same_after_an_interruption(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"hard_epochs": 4, "hard_share": 0.6, "restore_best": False}
    whole = train(None, **settings)
    for steps in (STEPS + 3, STEPS, 2):  # within an epoch of all images, at the end of one, within one of the harder
        with pytest.raises(Interrupted):
            train(tmp_path, stop=after(steps), **settings)
    assert_same(train(tmp_path, **settings), whole)


def test_restored_weights_are_the_best_ones_from_before_the_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "EPOCH_SECONDS", 0.0)
    whole = train(None, early_stop=2, epochs=30)
    with pytest.raises(Interrupted):
        train(tmp_path, stop=after((STEPS + 1) * whole[1].epochs - 1), early_stop=2, epochs=30)
    assert_same(train(tmp_path, early_stop=2, epochs=30), whole)
    # And once more when only the last line of the program was missing: no further epoch is trained.
    assert_same(train(tmp_path, early_stop=2, epochs=30), whole)


def test_two_checkpoints_are_kept_and_none_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EPOCH_SECONDS", 0.0)
    train(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00005-0000000", "00006-0000000"]
    for path in tmp_path.iterdir():
        assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip_bit(path / "tensors.safetensors"),
        lambda path: flip_bit(path / "state.json"),
        lambda path: (path / "manifest.json").write_text("{"),
        lambda path: (path / "tensors.safetensors").write_bytes(b""),
        lambda path: (path / "state.json").unlink(),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(checkpoint, "EPOCH_SECONDS", 0.0)
    whole = train(None)
    with pytest.raises(Interrupted):
        train(tmp_path, stop=after(3 * (STEPS + 1) + 1))
    damage(tmp_path / "00003-0000001")
    listener = Listener()
    assert_same(train(tmp_path, listener=listener), whole)
    assert "checkpoint 00003-0000001 is damaged" in listener.said[0]
    assert "falling back" in listener.said[0]
    assert listener.said[1] == "resumed at epoch 4, step 0"


def test_where_every_checkpoint_is_damaged_nothing_is_trained_over_them(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=after(3))
    flip_bit(tmp_path / "00000-0000003" / "tensors.safetensors")
    before = (tmp_path / "00000-0000003" / "tensors.safetensors").read_bytes()
    with pytest.raises(RunError, match=r"received only damaged ones in .*; delete that folder"):
        train(tmp_path)
    assert (tmp_path / "00000-0000003" / "tensors.safetensors").read_bytes() == before


@pytest.mark.parametrize("lr", [1e38, 1e6])  # the second stays finite: 1e14
def test_a_loss_that_is_no_number_names_the_step_and_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lr: float
) -> None:
    monkeypatch.setattr(checkpoint, "EPOCH_SECONDS", 0.0)
    torch.manual_seed(7)
    with pytest.raises(Interrupted):
        train(tmp_path, stop=after(STEPS + 2))
    good = tmp_path / "00001-0000001"
    with pytest.raises(RunError, match=r"in step 3 of epoch 2; the last good checkpoint is .*00001-0000001; try a"):
        train(tmp_path, lr=lr, optimizer="adam")
    assert good.exists()
    assert all("nan" not in (path / "state.json").read_text() for path in tmp_path.iterdir())


def test_a_full_disk_loses_nothing_already_saved(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs a privilege that this process does not have")
    try:
        whole = train(None)
        with pytest.raises(Interrupted):
            train(disk / "c", stop=after(5))
        saved = {path: path.read_bytes() for path in sorted((disk / "c").rglob("*")) if path.is_file()}
        with (disk / "fill").open("wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                os.write(file.fileno(), bytes(1024))
        full = r"expected room for [\d.]+ kB in .*, received a full disk .*; what was saved before is whole"
        with pytest.raises(RunError, match=full):
            train(disk / "c", stop=after(3))
        assert {path: path.read_bytes() for path in sorted((disk / "c").rglob("*")) if path.is_file()} == saved
        (disk / "fill").unlink()
        assert_same(train(disk / "c"), whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_checkpoint_is_safetensors_and_json_alone(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=after(7))
    (path,) = tmp_path.iterdir()
    state = json.loads((path / "state.json").read_text())
    assert (state["epoch"], state["step"], state["seen"]) == (1, 2, 32)
    assert len(state["history"]["loss"]) == 1
