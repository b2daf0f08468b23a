"""The life of a run is one: Python and the command line leave the same folder, and nothing is done twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lucidate
from fakes import Listener
from lucidate.cli.main import main
from lucidate.core.recipe import load_recipe
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.training import job
from lucidate.training.job import complete, prepare_run

SMALL = {"train.epochs": 1, "model.widths": [4, 4], "model.dropout": [0.0, 0.0], "model.dense": 8}
OVERRIDES = [f"{key}={value}" for key, value in SMALL.items()]


def test_python_and_the_command_line_leave_the_same_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lucidate.train("digits", out=tmp_path / "python", settings=SMALL)
    options = [word for override in OVERRIDES for word in ("--set", override)]
    with pytest.raises(SystemExit) as end:
        main(["train", "digits", "--out", str(tmp_path / "command"), *options])
    assert end.value.code == 0, capsys.readouterr().err
    ours, theirs = (
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "python", tmp_path / "command")
    )
    assert ours == theirs
    assert "predictions/validation.parquet" in ours
    assert "predictions/test.parquet" not in ours  # sealed
    for name in ("weights.safetensors", "splits.parquet", "predictions/validation.parquet"):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
    cards = [RunCard.load(tmp_path / name / "run.json") for name in ("python", "command")]
    assert [card.status for card in cards] == ["trained", "trained"]
    assert cards[0].results.val_accuracy == cards[1].results.val_accuracy


def test_a_run_is_completed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, listener = load_recipe("digits", overrides=OVERRIDES), Listener()
    run, device = RunDir(tmp_path / "run"), torch.device("cpu")
    complete(prepare_run(recipe, out=run.path, device=device, reporter=listener), reporter=listener)
    card = RunCard.load(run.card)
    assert (card.status, card.results.test_openings) == ("finished", 1)
    assert card.results.test_accuracy is not None
    monkeypatch.setattr(job, "fit", None)
    monkeypatch.setattr(job, "predict_run", None)
    complete(prepare_run(recipe, out=run.path, device=device, resume=True, reporter=listener), reporter=listener)
    assert listener.said[-1] == "run: finished before"
    assert RunCard.load(run.card) == card


def test_figures_that_a_kill_kept_from_the_card_are_made_again(tmp_path: Path) -> None:
    recipe, listener = load_recipe("digits", overrides=OVERRIDES), Listener()
    run, device = RunDir(tmp_path / "run"), torch.device("cpu")
    complete(prepare_run(recipe, out=run.path, device=device, reporter=listener), reporter=listener)
    card = RunCard.load(run.card)
    results = card.results.model_copy(update={"test_accuracy": None, "test_openings": 0})
    card.model_copy(update={"status": "trained", "results": results}).save(run.card)
    complete(prepare_run(recipe, out=run.path, device=device, resume=True, reporter=listener), reporter=listener)
    again = RunCard.load(run.card)
    assert (again.status, again.results.test_openings) == ("finished", 1)
    assert again.results.test_accuracy == card.results.test_accuracy
