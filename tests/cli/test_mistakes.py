"""A mistake by the user: one line on standard error, status 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Road
from lucidate.cli.console import table
from lucidate.cli.main import main
from lucidate.core.records import RunCard
from lucidate.data.packed import packed_images


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, expect it to refuse, and return what it said."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    captured = capsys.readouterr()
    assert end.value.code == 2, captured.err
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image_folder(root: Path, *, classes: int, count: int = 12) -> Path:
    generator = np.random.default_rng(0)
    for label in range(classes):
        (root / f"class-{label}").mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class-{label}" / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "digits", "--data", "no/such/place"], ["data:", "no/such/place", "does not exist"]),
        (["run", "nonsense"], ["recipe:", "compact, digits", "'nonsense'"]),
        (["run", "digits", "--set", "train.epoch=3"], ["unknown key 'train.epoch'", "did you mean 'epochs'"]),
        (["run", "digits", "--set", "train.epochs=-1"], ["train.epochs", "greater than or equal to 1", "-1"]),
        (["run", "digits", "--set", "train.lr=abc"], ["train.lr", "number", "'abc'"]),
        (["run", "digits", "--set", "train.lr"], ["--set", "KEY=VALUE"]),
        (["run", "digits", "--set", "model.name=compcat"], ["model", "compact", "'compcat'"]),
        (["run", "digits", "--set", "model.width=3"], ["unknown option 'width'", "did you mean 'widths'"]),
        (["run", "digits", "--set", "model.widths=[8,8,8,8,8]", "--set", "model.dropout=[0,0,0,0,0]"], ["8 pixels"]),
        (["run", "digits", "--out", "/dev/null/run"], ["--out", "/dev/null is not a folder"]),
        (["data", "info", "digits", "--image-size", "100000"], ["image_size", "512", "100000"]),
        (["run", "digits", "--device", "tpu"], ["--device", "auto, cpu or cuda", "'tpu'"]),
        (["run"], ["Missing argument", "RECIPE"]),
        (["run", "digits", "--outt", "x"], ["No such option", "--outt"]),
        (["rum", "digits"], ["No such command", "rum"]),
        (["predict", "nowhere"], ["run:", "run.json", "nowhere"]),
        (["gallery"], ["RUN", "--predictions", "neither"]),
        (["gallery", "--predictions", "x.npz"], ["--images"]),
        (["gallery", "nowhere"], ["run.json", "nowhere"]),
        (["analyze", "--predictions", "x.npz", "--images", "digits"], ["--predictions", "x.npz"]),
        (["data", "info", "no/such/place"], ["data:", "does not exist"]),
    ],
)
def test_arguments(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    text = mistake(capsys, *arguments)
    for word in words:
        assert word in text
    assert list(here.iterdir()) == []


def test_folders(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "empty").mkdir()
    image_folder(here / "single", classes=1)
    image_folder(here / "few", classes=2, count=2)
    before = sorted(here.iterdir())
    assert "empty folder" in mistake(capsys, "run", "compact", "--data", "empty")
    assert "two class" in mistake(capsys, "run", "compact", "--data", "single")
    assert "leave none for" in mistake(capsys, "run", "compact", "--data", "few")
    assert sorted(here.iterdir()) == before


def test_an_output_folder_that_is_taken_stays_as_it_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "taken").mkdir()
    (here / "taken" / "run.json").write_text("mine")
    assert "already holds a run" in mistake(capsys, "run", "digits", "--out", "taken")
    assert [path.name for path in (here / "taken").iterdir()] == ["run.json"]
    assert (here / "taken" / "run.json").read_text() == "mine"


@pytest.mark.parametrize("fault", ["nan", "labels", "classes"])
def test_predictions(here: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    logits = np.zeros((1797, 9 if fault == "classes" else 10))
    labels = np.full(1797, 10 if fault == "labels" else 1)
    if fault == "nan":
        logits[3, 3] = np.nan
    np.savez(here / "p.npz", logits=logits, labels=labels, index=np.arange(1797))
    words = {"nan": "NaN", "labels": "expected 0 to 9, received 10", "classes": "expected 10 classes, received 9"}
    for verb in ("gallery", "analyze"):
        text = mistake(capsys, verb, "--predictions", "p.npz", "--images", "digits", "--out", "out")
        assert words[fault] in text
    assert [path.name for path in here.iterdir()] == ["p.npz"]


def test_a_training_that_diverges_leaves_nothing_in_the_way(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "digits", "--set", "train.optimizer=sgd", "--set", "train.lr=1e30", "--out", "run"])
    assert end.value.code == 2
    assert "try a lower train.lr" in capsys.readouterr().err.splitlines()[-1]
    assert list(here.iterdir()) == []


def test_debug_shows_the_traceback(here: Path) -> None:  # noqa: ARG001
    with pytest.raises(Exception, match="does not exist"):
        main(["--debug", "data", "info", "no/such/place"])


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_a_group_alone_shows_its_help_and_no_empty_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert "Usage" in captured.out + captured.err
    assert "error:" not in captured.err


def test_a_systems_error_is_told_without_its_number(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("lucidate.core.records.RunCard.load", full)
    (here / "runs" / "one").mkdir(parents=True)
    (here / "runs" / "one" / "run.json").touch()
    assert mistake(capsys, "runs").endswith("run.json: expected to read or write it, received: No space left on device")


def test_a_class_that_a_split_lacks_is_warned_of(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_folder(here / "photos", classes=2, count=24)
    (here / "photos" / "rare").mkdir()
    for number in range(3):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(here / "photos" / "rare" / f"{number}.png")
    settings = ["--set", "train.epochs=1", "--set", "train.batch_size=8", "--set", "train.balance=weights"]
    with pytest.raises(SystemExit) as end:
        main(["train", "compact", "--data", str(here / "photos"), "--name", "Hand signs", "--out", "run", *settings])
    said = capsys.readouterr().err
    assert end.value.code == 0, said
    assert "warning: test: no image of rare, so that its accuracy stays unknown" in said
    assert "is uncertain; add images\n" in said  # they weigh more already
    assert RunCard.load(here / "run" / "run.json").data.dataset == "hand-signs"
    assert packed_images(RunCard.load(here / "run" / "run.json")) is not None


def test_runs_are_listed(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["runs", str(road.folder / "runs"), "--json"])
    found = json.loads(capsys.readouterr().out)["runs"]
    (row,) = [each for each in found if each["run"].endswith("demo")]
    assert (row["data"], row["status"], row["test_accuracy"]) == ("digits", "finished", road.result["test_accuracy"])
    with pytest.raises(SystemExit):
        main(["runs", str(road.folder / "runs")])
    assert f"{row['test_accuracy']:.4f}" in capsys.readouterr().out


def test_a_table_in_a_log_is_not_cut() -> None:
    text = table(("test (95 % CI)", "words"), [("0.1010 (0.067–0.149)", "x" * 300)])
    assert "0.1010 (0.067–0.149)" in text
    assert "x" * 300 in text


def test_a_run_card_with_other_classes_than_its_predictions_is_refused(
    road: Road, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(road.run.path, tmp_path / "cut")
    card = json.loads((tmp_path / "cut" / "run.json").read_text())
    (tmp_path / "cut" / "run.json").write_text(json.dumps({**card, "classes": card["classes"][:2]}))
    assert "expected the 10 classes of" in mistake(capsys, "gallery", str(tmp_path / "cut"))


@pytest.mark.slow
def test_a_judged_run_without_its_tables_has_a_gallery_after_one_command(
    road: Road, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(road.run.path, tmp_path / "shipped")
    shutil.rmtree(tmp_path / "shipped" / "predictions")
    (tmp_path / "shipped" / "splits.parquet").unlink()
    before = (tmp_path / "shipped" / "run.json").read_bytes()
    with pytest.raises(SystemExit) as end:
        main(["gallery", str(tmp_path / "shipped"), "--json"])
    captured = capsys.readouterr()
    assert end.value.code == 0, captured.err
    assert json.loads(captured.out)["accuracy"] == road.result["test_accuracy"]
    assert (tmp_path / "shipped" / "run.json").read_bytes() == before
    card = json.loads(before)
    card["results"]["test_accuracy"] = None  # sealed: its user decides when it is opened
    (tmp_path / "shipped" / "run.json").write_text(json.dumps(card))
    shutil.rmtree(tmp_path / "shipped" / "predictions")
    assert "lucidate predict" in mistake(capsys, "gallery", str(tmp_path / "shipped"))


@pytest.mark.slow
def test_an_interrupt_while_modules_load_is_no_traceback() -> None:
    # Until Python itself has started, an interrupt is not the command's to answer: wait for its first line.
    program = "from lucidate.__main__ import main; print('started', flush=True); main()"
    for seconds in (0.05, 0.4, 0.8):
        command = [sys.executable, "-c", program, "models"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said
        assert process.returncode in (0, 130)
