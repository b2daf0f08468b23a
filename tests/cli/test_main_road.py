"""The commands as a user calls them, on the embedded digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lucidate.cli.main import main
from lucidate.core.records import Predictions, RunCard
from lucidate.core.rundir import RunDir

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command with --json and return its object, the last line of standard output."""

    def run(*arguments: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--json"])
        captured = capsys.readouterr()
        assert end.value.code == 0, captured.err
        return dict(json.loads(captured.out.splitlines()[-1]))

    return run


def test_one_command_from_images_to_a_gallery(tmp_path: Path, call: Call) -> None:
    out = tmp_path / "run"
    result = call("run", "digits", "--set", "train.epochs=12", "--out", str(out))
    assert result.keys() >= {"run", "val_accuracy", "test_accuracy", "gallery", "seconds"}
    assert result["test_accuracy"] >= 0.95
    assert Path(result["gallery"]).is_file()

    run, card = RunDir(out), RunCard.load(out / "run.json")
    assert card.status == "finished"
    assert card.recipe.train.epochs == 12
    assert card.results["test_accuracy"] == result["test_accuracy"]
    assert card.split == {
        "scheme": "80-10-10",
        "requested": "80-10-10",
        "sizes": {"train": 1439, "validation": 179, "test": 179},
    }
    assert card.model["values"] == 323_946
    assert card.data["pack"]
    assert card.versions["torch"]
    history = json.loads(run.history.read_text())
    keys = {"accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "epoch_seconds"}
    assert history.keys() == keys
    assert {len(values) for values in history.values()} == {12}
    assert max(history["val_accuracy"]) == result["val_accuracy"]

    test = Predictions.load(run.predictions("test"))
    splits = pq.read_table(run.splits).to_pandas().set_index("id")
    assert (splits.loc[test.ids, "split"] == "test").all()
    assert test.accuracy == result["test_accuracy"]
    confusion = json.loads((run.analysis / "confusion_matrix.json").read_text())
    assert np.array(confusion["counts"]).sum() == 179
    assert not [path for path in out.rglob("*") if path.suffix in (".pkl", ".pt", ".pickle")]

    # Any stage can be done again from the files alone.
    assert call("predict", str(out), "--split", "test")["accuracy"] == result["test_accuracy"]
    assert call("analyze", str(out))["accuracy"] == result["test_accuracy"]
    assert call("gallery", str(out))["gallery"] == result["gallery"]

    # The same predictions as anybody's table give the same figures.
    np.savez(tmp_path / "p.npz", id=test.ids, labels=test.labels, probabilities=test.probabilities)
    arguments = ["--predictions", str(tmp_path / "p.npz"), "--images", "digits", "--out", str(tmp_path / "site")]
    assert call("gallery", *arguments)["accuracy"] == result["test_accuracy"]
    assert (tmp_path / "site" / "docs" / "digits_confusion_matrix.html").is_file()
    assert not (tmp_path / "site" / "docs" / "digits_acc.html").exists()  # no history was given


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, call: Call) -> None:
    runs = []
    for name in ("a", "b"):
        call("train", "digits", "--set", "train.epochs=2", "--out", str(tmp_path / name))
        call("predict", str(tmp_path / name), "--split", "validation")
        runs.append(RunDir(tmp_path / name))
    first, second = runs
    assert first.weights.read_bytes() == second.weights.read_bytes()
    assert first.predictions("validation").read_bytes() == second.predictions("validation").read_bytes()
    assert first.splits.read_bytes() == second.splits.read_bytes()
    histories = [json.loads(run.history.read_text()) for run in runs]
    for history in histories:
        del history["epoch_seconds"]
    assert histories[0] == histories[1]
    assert not first.predictions("test").exists()  # training leaves the test split sealed


def test_a_folder_of_photos_with_a_few_bad_files(
    tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            pixels = generator.integers(0, 100, (24, 30, 3)) + 120 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "photos" / "dark" / "empty.png").touch()
    (tmp_path / "photos" / "light" / "notes.txt").write_text("not an image")
    info = call("data", "info", str(tmp_path / "photos"))
    assert info["images"] == 80
    assert {item["path"] for item in info["set_aside"]} == {"dark/empty.png", "light/notes.txt"}
    assert all(item["reason"] for item in info["set_aside"])
    overrides = ["--set", "train.epochs=2", "--set", "data.image_size=16", "--set", "model.widths=[8,8,8]"]
    result = call("run", "compact", "--data", str(tmp_path / "photos"), *overrides, "--out", str(tmp_path / "run"))
    card = RunCard.load(tmp_path / "run" / "run.json")
    assert (card.split["requested"], card.split["scheme"]) == ("official", "80-10-10")
    assert len(card.data["set_aside"]) == 2
    assert Path(result["gallery"]).is_file()
    capsys.readouterr()


def test_what_can_be_named_is_listed(call: Call) -> None:
    assert call("models")["models"]["compact"]["dense"] == 256
    report = call("data", "verify", "digits")
    assert (report["images"], report["set_aside"]) == (1797, [])
    assert call("data", "fetch", "digits")["path"] is None


@pytest.mark.parametrize("verb", ["run", "train", "predict", "analyze", "gallery", "models", "demo", "data info"])
def test_every_verb_has_help_with_an_example(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([*verb.split(), "--help"])
    assert end.value.code == 0
    assert f"lucidate {verb}" in capsys.readouterr().out.split("Example")[1]
