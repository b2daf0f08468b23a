"""The commands as a user calls them, on the embedded digits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cli.conftest import Road
from lucidate.cli.main import main
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.report.figures.catalog import FEW

Call = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.slow


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


def test_one_command_from_images_to_a_gallery(road: Road) -> None:
    result, run = road.result, road.run
    assert result.keys() >= {"run", "val_accuracy", "test_accuracy", "gallery", "seconds"}
    assert result["test_accuracy"] >= 0.95
    assert result["gallery"] == str(Path("runs/demo/gallery/index.html"))
    assert (run.gallery() / "index.html").is_file()
    pages, pictures = (list((run.gallery() / name).glob("*.*")) for name in ("docs", "plots"))
    mistakes = round((1 - result["test_accuracy"]) * 179)
    assert len(pages) == len(pictures) == (13 if mistakes > FEW else 11)  # few have one page in place of three
    assert "epoch 12/12: loss" in road.log
    assert "images/s" in road.log

    card = RunCard.load(run.card)
    assert card.status == "finished"
    assert card.recipe.train.epochs == 12
    assert card.results.test_accuracy == result["test_accuracy"]
    assert (card.split.scheme, card.split.requested) == ("80-10-10", "80-10-10")
    assert card.split.sizes == {"train": 1439, "validation": 179, "test": 179}
    assert card.model.values == 323_946
    assert card.data.pack
    assert card.results.test_openings == 1
    assert card.versions["torch"]


def test_the_history_has_keras_keys(road: Road) -> None:
    history = json.loads(road.run.history.read_text())
    keys = {"accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "epoch_seconds", "images"}
    assert history.keys() == keys
    assert {len(values) for values in history.values()} == {12}
    assert max(history["val_accuracy"]) == road.result["val_accuracy"]


def test_predictions_and_findings_agree_with_the_result(road: Road) -> None:
    test = Predictions.load(road.run.predictions("test"))
    splits = pq.read_table(road.run.splits).to_pandas().set_index("id")
    assert (splits.loc[test.ids, "split"] == "test").all()
    assert test.accuracy == road.result["test_accuracy"]
    confusion = np.array(json.loads((road.run.analysis() / "confusion_matrix.json").read_text())["counts"])
    assert confusion.sum() == 179
    assert np.trace(confusion) == round(179 * test.accuracy)
    assert not [path for path in road.run.path.rglob("*") if path.suffix in (".pkl", ".pt", ".pth", ".pickle")]


@pytest.mark.slow
def test_any_stage_can_be_done_again_from_the_files_alone(road: Road, call: Call) -> None:
    accuracy, before = road.result["test_accuracy"], road.run.predictions("test").read_bytes()
    assert call("predict", str(road.run.path), "--split", "test")["accuracy"] == accuracy
    assert road.run.predictions("test").read_bytes() == before
    assert call("analyze", str(road.run.path))["accuracy"] == accuracy
    assert Path(call("gallery", str(road.run.path))["gallery"]) == road.run.gallery() / "index.html"


@pytest.mark.slow
def test_the_same_predictions_as_anybodys_table_give_the_same_figures(road: Road, call: Call, tmp_path: Path) -> None:
    test = Predictions.load(road.run.predictions("test"))
    np.savez(tmp_path / "p.npz", id=test.ids, labels=test.labels, probabilities=test.probabilities)
    arguments = ["--predictions", str(tmp_path / "p.npz"), "--images", "digits", "--out", str(tmp_path / "site")]
    assert call("gallery", *arguments)["accuracy"] == road.result["test_accuracy"]
    matrix = "assets/csv/digits_confusion_matrix.csv"
    assert (tmp_path / "site" / matrix).read_bytes() == (road.run.gallery() / matrix).read_bytes()
    assert not (tmp_path / "site" / "docs" / "digits_acc.html").exists()  # no history was given
    with_curves = [*arguments[:-1], str(tmp_path / "full"), "--history", str(road.run.history)]
    call("gallery", *with_curves)
    assert (tmp_path / "full" / "docs" / "digits_acc.html").is_file()


@pytest.mark.slow
def test_the_readme_shows_python_that_runs(
    road: Road, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert blocks
    monkeypatch.chdir(road.folder)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "of 1,258 test images are right" in capsys.readouterr().out


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert (card.split.requested, card.split.scheme) == ("official", "80-10-10")
    assert len(card.data.set_aside) == 2
    assert Path(result["gallery"]).is_file()
    capsys.readouterr()


@pytest.mark.slow
def test_a_run_is_usable_from_another_folder_and_a_gallery_replaces_only_itself(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("a", "b"):
        (tmp_path / "here" / "photos" / label).mkdir(parents=True)
        for number in range(20):
            pixels = np.full((8, 8, 3), number + 100 * (label == "a"), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "here" / "photos" / label / f"{number}.png")
    monkeypatch.chdir(tmp_path / "here")
    call("run", "compact", "--data", "photos", "--set", "train.epochs=1", "--out", "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    call("predict", "../here/run", "--split", "train")
    call("gallery", "../here/run")
    call("gallery", "../here/run", "--split", "train")
    assert (tmp_path / "here" / "run" / "gallery-train" / "index.html").is_file()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    for verb in ("gallery", "analyze"):
        with pytest.raises(SystemExit) as end:
            main([verb, "../here/run", "--out", "../thesis"])
        assert end.value.code == 2
        assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]


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
