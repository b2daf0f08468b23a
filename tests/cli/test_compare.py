"""`lucidate compare`: runs and tables, with and without images; mistakes in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import random_predictions
from lucidate.cli.main import main
from lucidate.core.records import Predictions
from lucidate.data.pack import open_pack

pytestmark = pytest.mark.slow


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *arguments])
    out, err = capsys.readouterr()
    return int(str(ended.value.code)), out, err


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    status, out, err = call(capsys, *arguments, "--json")
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def digits(skill: float, split: str = "test") -> Predictions:
    """Random answers to the first 300 embedded digits."""
    pack, rows = open_pack("digits"), np.arange(300)
    made = random_predictions(300, seed=4, skill=0)
    logits = made.logits.copy()
    logits[rows, pack.labels[rows]] += skill
    return replace(
        made,
        ids=pack.ids[rows],
        index=rows,
        labels=pack.labels[rows],
        logits=logits,
        class_names=pack.class_names,
        dataset="digits",
        split=split,
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two tables, weak.parquet and strong.parquet."""
    monkeypatch.chdir(tmp_path)
    digits(1.0).save("weak.parquet")
    digits(2.5).save("strong.parquet")
    return tmp_path


@pytest.fixture
def runs(here: Path) -> Path:
    """Two run folders as `compare` reads them: a run card, weights, predictions of the test split."""
    card = {
        "name": "x",
        "created": "2026-01-01",
        "seed": 3,
        "recipe": {"model": {"name": "compact"}},
        "data": {
            "source": "digits",
            "path": None,
            "dataset": "digits",
            "pack": open_pack("digits").hash,
            "images": 1797,
            "image_size": 8,
            "flips": False,
            "set_aside": [],
        },
        "classes": list(open_pack("digits").class_names),
        "split": {"scheme": "80-10-10", "requested": "80-10-10", "sizes": {"train": 1, "test": 1}},
        "preprocess": {},
        "model": {"name": "compact", "options": {}, "parameters": 1234, "values": 1234},
        "results": {"epochs": 7},
        "versions": {},
        "hardware": {},
        "threads": 1,
        "commit": None,
        "command": "",
    }
    for name in ("weak", "strong"):
        folder = here / "made" / name
        (folder / "predictions").mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(card))
        (folder / "weights.safetensors").touch()
        shutil.move(here / f"{name}.parquet", folder / "predictions/test.parquet")
    return here


def test_two_tables_give_words_and_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weak, strong = Predictions.load("weak.parquet"), Predictions.load("strong.parquet")
    found = answer(capsys, "weak.parquet", "strong.parquet")
    assert found["accuracy_a"] == weak.accuracy
    assert found["accuracy_b"] == strong.accuracy
    assert found["difference"] == pytest.approx(strong.accuracy - weak.accuracy)
    assert found["difference_low"] < found["difference"] < found["difference_high"]
    assert found["fixed"] - found["broken"] == strong.correct.sum() - weak.correct.sum()
    assert 0 <= found["mcnemar_p"] <= 1
    assert found["images"] == 300
    assert found["page"] is None
    assert {row["class"] for row in found["per_class"]} == set(weak.class_names)
    row = found["per_class"][0]
    assert row["change"] == pytest.approx(row["accuracy_b"] - row["accuracy_a"])
    assert sorted(path.name for path in here.iterdir()) == ["strong.parquet", "weak.parquet"]
    status, out, _ = call(capsys, "weak.parquet", "strong.parquet")
    assert status == 0
    assert "strong is better than weak: " in out
    assert "fixed: wrong in A, right in B" in out
    assert "No page: two tables have no images; --images SRC names them." in out


def test_two_tables_with_images_give_a_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "weak.parquet", "strong.parquet", "--images", "digits", "--out", "page")
    assert found["page"] == "page/index.html"
    assert "strong is better than weak" in (here / found["page"]).read_text(encoding="utf-8")


def test_two_runs_find_their_own_images(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "made/weak", "made/strong")
    assert found["page"] == "runs/compare-weak-strong/index.html"
    page = (runs / found["page"]).read_text(encoding="utf-8")
    assert "compact, 1,234 parameters, 7 epochs, seed 3" in page
    assert answer(capsys, "made/weak", "made/strong")["page"] == "runs/compare-weak-strong-2/index.html"
    status, out, _ = call(capsys, "made/strong/predictions/test.parquet", "made/weak", "--out", "mixed")
    assert status == 0
    assert "weak is worse than strong: " in out  # a table inside a run is called as the run
    assert str(runs / "mixed/index.html") in out


def test_overlap_is_compared_and_the_rest_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = digits(2.5)
    part = {name: getattr(whole, name)[100:] for name in ("ids", "index", "labels", "logits")}
    replace(whole, **part).save("part.parquet")
    assert answer(capsys, "weak.parquet", "part.parquet")["images"] == 200
    _, out, _ = call(capsys, "weak.parquet", "part.parquet")
    assert "100 images only in weak, left out" in out
    index = answer(capsys, "weak.parquet", "part.parquet", "--images", "digits", "--out", "page")["page"]
    assert "100 images that only weak answered are left out." in (here / index).read_text(encoding="utf-8")


def test_mistakes_are_said_in_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(here.iterdir())
    both = ("weak.parquet", "strong.parquet")
    assert "A: expected a run folder or a predictions table, received nowhere" in mistake(capsys, "nowhere", both[1])
    assert "B: expected a run folder" in mistake(capsys, both[0], "nowhere")
    assert "run.json" in mistake(capsys, ".", both[1])
    assert "--split: expected only with a run" in mistake(capsys, *both, "--split", "test")
    assert "--out: expected --images SRC too" in mistake(capsys, *both, "--out", "page")
    assert "--images: expected" not in mistake(capsys, *both, "--images", "no/such/place")
    assert "Missing argument" in mistake(capsys, "weak.parquet")
    (here / "note.parquet").write_text("no table")
    assert "expected a predictions table" in mistake(capsys, "note.parquet", both[1])
    (here / "note.parquet").unlink()
    strangers = digits(1.0)
    replace(strangers, ids=np.array([f"x{row}" for row in range(300)])).save("x.parquet")
    assert "ids: expected images in common" in mistake(capsys, "x.parquet", both[1])
    replace(strangers, class_names=tuple("abcdefghij")).save("x.parquet")
    assert "classes: expected the same in both" in mistake(capsys, "x.parquet", both[1])
    replace(strangers, labels=(strangers.labels + 1) % 10).save("x.parquet")
    assert "labels: expected one label an image" in mistake(capsys, "x.parquet", both[1])
    (here / "x.parquet").unlink()
    assert sorted(here.iterdir()) == before


def test_runs_without_predictions_say_how_to_make_them(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = mistake(capsys, "made/weak", "made/strong", "--split", "validation")
    assert "lucidate predict made/weak --split validation" in line
    assert "split: expected one of train, validation, test" in mistake(
        capsys, "made/weak", "made/strong", "--split", "x"
    )
    assert "--images: expected only with two tables" in mistake(
        capsys, "made/weak", "made/strong", "--images", "digits"
    )
    (runs / "taken").mkdir()
    (runs / "taken" / "mine.txt").touch()
    assert "--out: expected a new or empty folder" in mistake(capsys, "made/weak", "made/strong", "--out", "taken")
    assert not (runs / "runs").exists()
