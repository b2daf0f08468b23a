"""A run folder made before packages and modules were renamed opens, answers and is shown as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import lucidate
from lucidate.cli.main import main
from lucidate.core.records import Predictions
from lucidate.core.run import RunDir
from lucidate.predict.infer import predict_run

pytestmark = pytest.mark.slow

OLD = Path(__file__).parent / "fixtures" / "digits-run-0.1"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(OLD, tmp_path / "old")))


def test_its_model_answers_as_it_did(run: RunDir) -> None:
    before = Predictions.load(run.predictions("test"))
    after = predict_run(run, "test")
    np.testing.assert_array_equal(after.ids, before.ids)
    np.testing.assert_allclose(after.logits, before.logits, atol=1e-5)
    assert lucidate.load(run.path).card.results.test_openings == 2


def test_its_graph_is_taken(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    exported = (run.exports / "model.onnx").read_bytes()
    with pytest.raises(SystemExit) as end:
        main(["predict", str(run.path), "--split", "validation", "--backend", "onnx", "--json"])
    captured = capsys.readouterr()
    assert end.value.code == 0, captured.err
    before = Predictions.load(run.predictions("validation"))
    assert json.loads(captured.out)["accuracy"] == before.accuracy
    assert (run.exports / "model.onnx").read_bytes() == exported


def test_it_is_analyzed_and_shown(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("analyze", "gallery", "report"):
        with pytest.raises(SystemExit) as end:
            main([command, str(run.path)])
        assert end.value.code == 0, capsys.readouterr().err
    assert (run.gallery() / "index.html").exists()
    assert (run.analysis() / "summary.json").exists()


def test_its_training_stands(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "digits", "--out", str(run.path)])
    assert end.value.code == 2
    assert "already holds a run" in capsys.readouterr().err
