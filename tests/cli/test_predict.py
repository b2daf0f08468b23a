"""A run's model on images that it was not made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cli.conftest import Road
from lucidate.analysis.calibration import calibrate
from lucidate.cli.main import main
from lucidate.core.records import Predictions
from lucidate.data.pack import open_pack

pytestmark = pytest.mark.slow


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    with pytest.raises(SystemExit) as ended:
        main(["predict", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    return json.loads(out.splitlines()[-1])


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["predict", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(scope="module")
def photos(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images of the run as PNG files, in folders of three of the ten classes."""
    test, pack = Predictions.load(road.run.predictions("test")), open_pack("digits")
    folder = tmp_path_factory.mktemp("photos")
    for row, label in zip(test.index, test.labels, strict=True):
        if label in (2, 5, 7):
            (folder / pack.class_names[label]).mkdir(exist_ok=True)
            Image.fromarray(pack.images[row]).save(folder / pack.class_names[label] / f"{row:05d}.png")
    return folder


def test_other_images_are_predicted_as_the_runs_own(
    road: Road, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.parquet"
    before = {path: path.read_bytes() for path in road.run.path.rglob("*") if path.is_file()}
    answer = call(capsys, str(road.run.path), "--data", str(photos), "--out", str(out))
    ours, own = Predictions.load(out), Predictions.load(road.run.predictions("test"))
    assert answer["images"] == len(ours)
    assert answer["accuracy"] == ours.accuracy
    assert ours.class_names == own.class_names
    logits = {int(row): values for row, values in zip(own.index, own.logits, strict=True)}
    for name, values in zip(ours.ids, ours.logits, strict=True):
        np.testing.assert_allclose(values, logits[int(Path(str(name)).stem)], atol=1e-4)
    assert {path: path.read_bytes() for path in road.run.path.rglob("*") if path.is_file()} == before


def test_files_are_named_with_their_likeliest_classes(
    road: Road, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Predictions.load(road.run.predictions("test"))
    files = sorted(photos.rglob("*.png"))[:4]
    answers = call(capsys, str(road.run.path), *map(str, files))["images"]
    assert isinstance(answers, list)
    for file, answer in zip(files, answers, strict=True):
        row = int(np.flatnonzero(own.index == int(file.stem))[0])
        assert answer["path"] == str(file)
        assert answer["classes"][0] == own.class_names[own.predicted[row]]
        np.testing.assert_allclose(answer["probabilities"], np.sort(own.probabilities[row])[::-1][:3], atol=1e-4)


def test_mistakes_are_said_in_one_line(
    road: Road, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = str(road.run.path), str(next(photos.rglob("*.png")))
    assert "received both" in mistake(capsys, run, file, "--data", str(photos))
    assert "only with --data" in mistake(capsys, run, "--out", "x.parquet")
    (tmp_path / "note.png").write_text("no image")
    assert "note.png: expected an image" in mistake(capsys, run, str(tmp_path / "note.png"))
    assert "missing.png: expected an image file; there is none" in mistake(capsys, run, "missing.png")
    for name in ("2", "banana"):
        (tmp_path / "fruit" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "fruit" / name / "a.png")
    assert "has 'banana'" in mistake(capsys, run, "--data", str(tmp_path / "fruit"))


def test_a_csv_is_a_csv_and_other_names_are_refused(
    road: Road, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = call(capsys, str(road.run.path), "--data", str(photos), "--out", str(tmp_path / "all.csv"))
    table = pd.read_csv(tmp_path / "all.csv")
    assert len(table) == answer["images"]
    assert table["correct"].mean() == answer["accuracy"]
    shares = table[[name for name in table if str(name).startswith("p_")]]
    np.testing.assert_allclose(shares.to_numpy().sum(1), 1, atol=1e-4)
    np.testing.assert_allclose(shares.to_numpy().max(1), table["confidence"])
    assert (shares.idxmax(axis=1).str.removeprefix("p_") == table["predicted"].astype(str)).all()
    line = mistake(capsys, str(road.run.path), "--data", str(photos), "--out", str(tmp_path / "all.xlsx"))
    assert "expected a name that ends in .parquet or .csv" in line
    assert not (tmp_path / "all.xlsx").exists()


def test_probabilities_say_whether_they_are_calibrated_and_can_be(
    road: Road, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(next(photos.rglob("*.png")))
    plain = call(capsys, str(road.run.path), image)
    fitted = call(capsys, str(road.run.path), image, "--calibrated")
    validation = Predictions.load(road.run.predictions("validation"))
    temperature = calibrate(validation.logits, validation.labels).temperature
    assert (plain["calibrated"], plain["temperature"]) == (False, 1.0)
    assert (fitted["calibrated"], fitted["temperature"]) == (True, pytest.approx(temperature))
    with pytest.raises(SystemExit):
        main(["predict", str(road.run.path), image])
    assert "probabilities: one view an image, not calibrated" in capsys.readouterr().out
    assert "image files, or --out FILE.csv" in mistake(capsys, str(road.run.path), "--calibrated")
