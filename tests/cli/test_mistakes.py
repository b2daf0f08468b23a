"""A mistake by the user: one line on standard error, status 2, no traceback, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lucidate.cli.main import main


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
