"""`lucidate explain` on a run, as its user sees it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Road
from lucidate.analysis.heatmaps import Heatmaps
from lucidate.cli.main import main
from lucidate.core.errors import RunError
from lucidate.core.records import Predictions
from lucidate.core.run import RunDir

pytestmark = pytest.mark.slow


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    return json.loads(out.splitlines()[-1])


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def run(road: Road, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A copy of the run, for heatmaps of its own."""
    folder = tmp_path_factory.mktemp("explained") / "run"
    shutil.copytree(road.run.path, folder)
    return RunDir(folder)


def test_a_split_is_explained_and_trust_is_measured(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    answer = call(capsys, "explain", str(run.path), "--method", "gradcam")
    test = Predictions.load(run.predictions("test"))
    assert answer["images"] == len(test)
    assert answer["images_per_second"] > 0
    assert answer["layer"].startswith("blocks.")
    assert {"randomization", "pointing", "deletion", "verdict"} <= answer["trust"].keys()
    maps = np.load(run.explained / "gradcam-predicted-test.npy")
    peaks = np.load(run.explained / "gradcam-predicted-test.peaks.npy")
    assert len(maps) == len(peaks) == len(test)
    assert maps.max() <= 1
    assert answer["empty"] == int((peaks == 0).sum())
    assert len(answer["center"]) == test.num_classes
    page = Heatmaps.load(run.heatmaps())
    assert page.verdict == answer["trust"]["verdict"]
    assert {"hard_but_correct"} <= {group.key for group in page.groups}
    for group in page.groups:
        assert len(group.first) == len(group.second) == len(group.tiles)
        assert not (group.other == group.tiles.predicted).any()
    assert len(page.frame()) == 2 * sum(len(group.tiles) for group in page.groups)


def test_the_gallery_shows_them(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "explain", str(run.path))
    before = sum(path.stat().st_size for path in run.gallery().rglob("*") if path.is_file())
    call(capsys, "gallery", str(run.path))
    after = sum(path.stat().st_size for path in run.gallery().rglob("*") if path.is_file())
    assert after - before < 4_000_000
    page = (run.gallery() / "docs/heatmaps.html").read_text(encoding="utf-8")
    assert 'type="range"' in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "docs/heatmaps.html" in (run.gallery() / "index.html").read_text(encoding="utf-8")
    assert (run.gallery() / "plots/heatmaps.png").exists()
    assert (run.gallery() / "assets/csv/heatmaps.csv").exists()


@pytest.mark.parametrize("target", ["predicted", "true", "difference"])
def test_single_images_of_the_run_and_files(
    run: RunDir, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(Predictions.load(run.predictions("test")).ids[0])
    Image.new("RGB", (40, 30), (90, 20, 200)).save(tmp_path / "photo.png")
    images = ["--images", name] + ([] if target == "true" else ["--images", str(tmp_path / "photo.png")])
    arguments = ["--target", target, "--method", "hirescam", "--out", str(tmp_path / "out")]
    answer = call(capsys, "explain", str(run.path), *images, *arguments)
    assert len(answer["images"]) == len(images) // 2
    for one in answer["images"]:
        with Image.open(one["picture"]) as picture:
            assert picture.size == (256, 256)
        assert np.load(one["raw"]).ndim == 2
        assert (one["against"] is not None) == (target == "difference")


def test_an_ensemble_shows_its_members_and_their_mean(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(run.path, twin)
    call(capsys, "ensemble", str(run.path), str(twin), "--out", str(tmp_path / "both"))
    name = str(Predictions.load(run.predictions("test")).ids[0])
    (one,) = call(capsys, "explain", str(tmp_path / "both"), "--images", name)["images"]
    assert list(one["members"]) == ["run", "twin"]
    maps = [np.load(Path(picture).with_suffix(".npy")) for picture in one["members"].values()]
    mean = np.load(one["raw"])
    assert mean.sum() > 0
    np.testing.assert_allclose(sum(maps) / 2, mean, atol=1e-6)
    for picture in one["members"].values():
        assert Path(picture).exists()


def test_mistakes(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("no image")
    cases = [
        (["--method", "gradcamm"], "did you mean 'gradcam'"),
        (["--target", "wrong"], "expected one of predicted, true, difference"),
        (["--layer", "blocks.9"], "--layer: expected one of"),
        (["--method", "rollout"], "expected a vision transformer"),
        (["--method", "occlusion", "--layer", "blocks.2"], "--layer: expected none with occlusion"),
        (["--out", str(tmp_path / "x")], "expected only with --images"),
        (["--images", "nothing-of-this-name"], "or ids of the run's images such as"),
        (["--images", str(tmp_path / "text.png")], "expected an image"),
    ]
    for arguments, words in cases:
        line = mistake(capsys, "explain", str(run.path), *arguments)
        assert line.startswith("error: ")
        assert words in line, line
    with pytest.raises(RunError, match="expected heatmaps that lucidate explain wrote"):
        Heatmaps.load(tmp_path / "text.png")
