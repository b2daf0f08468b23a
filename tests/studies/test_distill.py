"""`lucidate distill` as a user runs it: on the digits, with a tiny budget."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.stats import ttest_rel

from lucidate.cli.main import main
from lucidate.core.atomic import sha256
from lucidate.core.errors import ExportError, Interrupted
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.splits import Splits
from lucidate.export import quantize
from lucidate.predict.infer import predict_run
from lucidate.studies import distill
from lucidate.studies.distill import distill_run
from lucidate.studies.distill_plan import student_recipe

pytestmark = pytest.mark.slow

BUDGET = ["train.epochs=2", "train.batch_size=50", "data.train_size=200", "train.precision=float32"]
SEEDS = (0, 1)


def arguments(teacher: Path, out: Path, *more: str) -> list[str]:
    options = [word for item in BUDGET for word in ("--set", item)]
    return [
        "distill",
        "--teacher",
        str(teacher),
        "--recipe",
        "edge",
        "--out",
        str(out),
        "--seeds",
        "2",
        *options,
        *more,
    ]


def call(*words: str) -> tuple[dict[str, Any], str]:
    """What the command printed as JSON, and what it said."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    assert ended.value.code == 0, err.getvalue()
    return json.loads(out.getvalue().splitlines()[-1]), err.getvalue()


def mistake(*words: str) -> str:
    err = StringIO()
    with redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    return err.getvalue().splitlines()[-1]


def written(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted(out.glob("*/weights.safetensors"))}


@dataclass(frozen=True)
class Done:
    """A distillation that was stopped while the first student was being taught, and went on by the same command."""

    teacher: RunDir
    out: Path
    answer: dict[str, Any]
    log: str
    before: dict[str, int]  # weights that stood when it was stopped, and when they were written


@pytest.fixture(scope="module", autouse=True)
def short_races() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "RACE_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A small compact net, whose test split is sealed."""
    run = RunDir(tmp_path_factory.mktemp("teacher") / "mentor")
    small = ["--set", "model.widths=[8, 16, 16]", "--set", "train.epochs=3", "--set", "train.precision=float32"]
    small += ["--set", "data.split=80-10-10"]
    call("train", "digits", *small, "--out", str(run.path))
    return run


@pytest.fixture(scope="module")
def done(teacher: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Done:
    out = tmp_path_factory.mktemp("distill") / "out"
    steps = count(1)  # asked after each of four steps, and after each of two epochs
    with pytest.raises(Interrupted, match="after step 3 of epoch 1"):
        distill_run(teacher, "edge", out, seeds=2, overrides=BUDGET, stop=lambda: next(steps) == 2 * 5 + 3)
    before = written(out)
    answer, log = call(*arguments(teacher.path, out))
    return Done(teacher, out, answer, log, before)


def test_what_was_stopped_goes_on_and_what_is_finished_is_not_repeated(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(done.before) == ["alone-0"]
    assert "alone-0: finished before" in done.log
    assert "resumed at epoch 1, step 3" in done.log
    now = written(done.out)
    assert now["alone-0"] == done.before["alone-0"]
    errors = 179 * (1 - done.answer["rows"][1]["accuracy"])
    monkeypatch.setattr(distill, "FEW", errors + 0.1)
    monkeypatch.setattr(
        "lucidate.training.job.fit", None
    )  # what is finished is not asked again, as by another number of threads
    again, log = call(*arguments(done.teacher.path, done.out))
    assert written(done.out) == now
    (hint,) = [note for note in again["notes"] if note.startswith("Alone, the student errs on")]
    assert f"errs on {errors:.1f} of 179" in hint
    assert hint not in done.answer["notes"]
    assert log.count("finished before") == 4
    assert "to int8" not in log
    assert [row["accuracies"] for row in again["rows"]] == [row["accuracies"] for row in done.answer["rows"]]
    assert (again["gain"], again["p"]) == (done.answer["gain"], done.answer["p"])


def test_the_rows_are_what_the_runs_say(done: Done) -> None:
    rows = {row["name"]: row for row in done.answer["rows"]}
    assert list(rows) == ["teacher", "student alone", "student distilled", "student distilled, int8"]
    for kind, name in (("alone", "student alone"), ("distilled", "student distilled")):
        cards = [RunCard.load(done.out / f"{kind}-{seed}/run.json") for seed in SEEDS]
        assert rows[name]["accuracies"] == [card.results.test_accuracy for card in cards]
        assert rows[name]["accuracy"] == pytest.approx(np.mean(rows[name]["accuracies"]))
        assert rows[name]["std"] == pytest.approx(np.std(rows[name]["accuracies"], ddof=1))
        assert all(card.status == "finished" for card in cards)
        assert rows[name]["bytes"] == (done.out / "distilled-0/export/model.onnx").stat().st_size
        assert rows[name]["parameters"] == cards[0].model.parameters < 250_000
        assert rows[name]["milliseconds"] > 0
    small = [Predictions.load(done.out / f"distilled-{seed}/predictions/test-onnx-int8.parquet") for seed in SEEDS]
    int8 = rows["student distilled, int8"]
    assert int8["accuracies"] == [table.accuracy for table in small]
    assert int8["bytes"] == (done.out / "distilled-0/export/model.int8.onnx").stat().st_size
    assert int8["bytes"] < rows["student distilled"]["bytes"] / 2
    assert rows["teacher"]["bytes"] == (done.out / "teacher.onnx").stat().st_size
    assert rows["teacher"]["model"] == "compact"


def test_the_gain_is_paired_over_seeds_and_over_images(done: Done) -> None:
    rows = {row["name"]: row for row in done.answer["rows"]}
    alone, taught = (rows[name]["accuracies"] for name in ("student alone", "student distilled"))
    assert done.answer["gain"] == pytest.approx(np.mean(np.subtract(taught, alone)))
    assert done.answer["p"] == pytest.approx(ttest_rel(taught, alone).pvalue)
    tables = [
        [Predictions.load(done.out / f"{kind}-{seed}/predictions/test.parquet") for seed in SEEDS]
        for kind in ("alone", "distilled")
    ]
    assert all(np.array_equal(table.ids, tables[0][0].ids) for kind in tables for table in kind)
    assert done.answer["by_images"]["mean"] == pytest.approx(done.answer["gain"])
    assert done.answer["by_images"]["low"] <= done.answer["gain"] <= done.answer["by_images"]["high"]


def test_it_is_written_up(done: Done) -> None:
    page = Path(done.answer["table"]).read_text(encoding="utf-8")
    assert page.count("\n| ") == 5
    for row in done.answer["rows"]:
        assert f"| {row['name']} | " in page
        assert f"{100 * row['accuracy']:.2f}" in page
    assert done.answer["headline"] in page
    assert "seed 1  " in page
    assert "The teacher was trained on 1,439 images, the students on 199" in page
    kept = json.loads((done.out / "distill.json").read_bytes())
    assert [row["accuracies"] for row in kept["rows"]] == [row["accuracies"] for row in done.answer["rows"]]
    assert kept["recipe"]["distill"]["teacher"] == sha256(done.teacher.weights)


def test_a_student_alone_is_a_plain_training(done: Done, tmp_path: Path) -> None:
    data = ["--set", "data.split=80-10-10", "--set", "data.seed=1"]
    budget = [word for item in BUDGET for word in ("--set", item)]
    call("train", "edge", "--data", "digits", *data, *budget, "--out", str(tmp_path / "plain"))
    plain, alone = (load_file(run / "weights.safetensors") for run in (tmp_path / "plain", done.out / "alone-0"))
    assert all(torch.equal(value, alone[name]) for name, value in plain.items())
    taught = load_file(done.out / "distilled-0/weights.safetensors")
    assert not any(torch.equal(value, alone[name]) for name, value in taught.items() if value.ndim == 4)


def test_students_share_the_teachers_division(done: Done) -> None:
    theirs = Splits.load(done.teacher.splits)
    for name in ("alone-1", "distilled-1"):
        ours = Splits.load(done.out / name / "splits.parquet")
        assert np.array_equal(ours.test, theirs.test)
        assert set(ours.train) < set(theirs.train)
        assert set(ours.validation) < set(theirs.validation)
    card = RunCard.load(done.out / "distilled-1/run.json")
    assert (card.seed, card.recipe.data.seed) == (1, 1)
    assert "Distilled from mentor (compact, " in card.notes[-1]
    assert RunCard.load(done.out / "alone-1/run.json").recipe.distill.teacher is None


def test_the_teacher_is_judged_as_it_would_judge_itself(done: Done, tmp_path: Path) -> None:
    assert not done.teacher.predictions("test").exists()  # nothing is written into its folder
    copy = RunDir(tmp_path / "mentor")
    shutil.copytree(done.teacher.path, copy.path)
    own = predict_run(copy, "test")
    assert done.answer["rows"][0]["accuracies"] == [own.accuracy]
    ours = Predictions.load(done.out / "teacher.parquet")
    np.testing.assert_allclose(ours.logits, own.logits, atol=1e-4)


def test_the_recipe_keeps_what_it_says_and_takes_the_teachers_images(teacher: RunDir, tmp_path: Path) -> None:
    card = RunCard.load(teacher.card)
    plain = student_recipe(card, "edge", source=None, overrides=[]).data
    assert (plain.source, plain.split, plain.seed, plain.train_size) == ("digits", "80-10-10", 1, None)
    own = tmp_path / "own.toml"
    own.write_text('[data]\nsource = "cifar10"\nsplit = "official"\ntrain_size = 100\n', encoding="utf-8")
    stated = student_recipe(card, own, source=None, overrides=[]).data
    assert (stated.source, stated.split, stated.train_size) == ("digits", "80-10-10", 100)
    asked = student_recipe(card, own, source="else/where", overrides=["data.train_size=50", "data.seed=0"]).data
    assert (asked.source, asked.split, asked.train_size, asked.seed) == ("else/where", "80-10-10", 50, 0)


def test_mistakes(done: Done, tmp_path: Path) -> None:
    images = tmp_path / "shapes"
    for name in ("round", "square"):
        (images / name).mkdir(parents=True)
        for place in range(12):
            pixels = np.full((8, 8, 3), 20 * place, np.uint8)
            Image.fromarray(pixels).save(images / name / f"{place}.png")
    mentor, new = str(done.teacher.path), tmp_path / "new"
    other = tmp_path / "other"
    shutil.copytree(done.teacher.path, other)
    values = load_file(other / "weights.safetensors")
    save_file({name: value + 1 for name, value in values.items()}, other / "weights.safetensors")
    changed = tmp_path / "changed"  # the same weights, another model
    shutil.copytree(done.teacher.path, changed)
    card = RunCard.load(changed / "run.json")
    card.model_copy(update={"preprocess": {**card.preprocess, "mean": [0.1, 0.2, 0.3]}}).save(changed / "run.json")
    budget = arguments(done.teacher.path, done.out)
    cases = [
        (["distill", "--teacher", str(tmp_path / "none"), "--out", str(new)], "received"),
        (["distill", "--teacher", mentor, "--recipe", "egde", "--out", str(new)], "did you mean 'edge'"),
        (
            ["distill", "--teacher", mentor, "--seeds", "0", "--out", str(new)],
            "--seeds: expected 1 or more, received 0",
        ),
        (["distill", "--teacher", mentor, "--data", str(images), "--out", str(new)], "received a run without round"),
        (
            ["distill", "--teacher", mentor, "--set", "data.seed=5", "--out", str(new)],
            "expected validation images that the teacher was not trained on",
        ),
        (["distill", "--teacher", mentor, "--set", "distill.temperature=0", "--out", str(new)], "distill.temperature"),
        (["distill", "--teacher", mentor, "--recipe", "auto", "--out", str(new)], "received auto, which chooses one"),
        (["distill", "--teacher", mentor, "--recipe", "transfer", "--out", str(new)], "set model.size to one of them"),
        (["distill", "--teacher", mentor, "--set", "distill.weight=2", "--out", str(new)], "distill.weight: expected"),
        (["distill", "--teacher", mentor, "--out", str(tmp_path)], "expected a new or empty folder"),
        ([*budget, "--set", "train.lr=0.1"], "--out: expected the distillation that"),
        (arguments(other, done.out), "distill = "),
        (arguments(changed, done.out), "teacher = "),
    ]
    for words, expected in cases:
        line = mistake(*words)
        assert line.startswith("error: ")
        assert expected in line, line
        assert not new.exists()


def test_a_student_without_an_onnx_form_still_has_its_accuracy(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ExportError("export: expected a model that torch.export can trace, received another")

    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    for path in out.glob("*/export"):
        shutil.rmtree(path)
    monkeypatch.setattr(distill, "quantize_run", refuse)
    monkeypatch.setattr(distill, "export_run", refuse)
    table = distill_run(done.teacher, "edge", out, seeds=1, overrides=BUDGET)
    rows = {row.name: row for row in table.rows}
    assert list(rows) == ["teacher", "student alone", "student distilled"]
    assert rows["student distilled"].bytes is None
    assert any(note.startswith("No student in int8: ") for note in table.notes)
    assert table.by_seeds.p is None
    assert table.p == table.by_images.p
