"""A run in int8: what is said of it is what plain ONNX Runtime finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fakes import Listener
from lucidate.cli.main import main
from lucidate.core.atomic import sha256
from lucidate.core.errors import ExportError, RunError, SourceError
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.splits import RunData, Splits, open_data
from lucidate.export import int8_choice, quantize
from lucidate.export.int8_choice import Histogram, Method, span
from lucidate.export.quantize import Quantized, quantize_run, summary
from lucidate.predict.backends import open_predictor
from made_runs import digits_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def quick() -> Any:
    """Races are run for a moment: their times are not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "RACE_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The compact CNN, a little trained, so that int8 has something to spoil. Not to be written into."""
    folder = tmp_path_factory.mktemp("quantize") / "digits"
    return digits_run(folder, "train.epochs=3", "data.train_size=640", "train.precision=float32", recipe="compact")


@pytest.fixture(scope="module")
def done(trained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Quantized]:
    """The same, quantized, with what was said of it. Not to be written into."""
    run = RunDir(shutil.copytree(trained.path, tmp_path_factory.mktemp("quantized") / "digits"))
    return run, quantize_run(run, budget=2.0)


@pytest.fixture
def own(done: tuple[RunDir, Quantized], tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(done[0].path, tmp_path / "own"))


def predicted(run: RunDir, name: str, split: str = "test") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, labels, classes) by plain ONNX Runtime, one image after another."""
    pack = open_data(run).pack
    rows = Splits.load(run.splits).rows(split)
    session = onnxruntime.InferenceSession(str(run.exports / name), providers=["CPUExecutionProvider"])
    logits = [session.run(["logits"], {"images": pack.images[row : row + 1]})[0][0] for row in rows]
    return pack.ids[rows], pack.labels[rows], np.argmax(logits, axis=1)


def test_accuracies_and_flips_are_those_of_an_independent_count(done: tuple[RunDir, Quantized]) -> None:
    run, said = done
    ids, labels, before = predicted(run, "model.onnx")
    _, _, after = predicted(run, "model.int8.onnx")
    assert said.images == len(ids)
    assert said.accuracy_fp32 == pytest.approx((before == labels).mean())
    assert said.accuracy_int8 == pytest.approx((after == labels).mean())
    assert said.change == pytest.approx(100 * (said.accuracy_int8 - said.accuracy_fp32))
    names = RunCard.load(run.card).classes
    flipped = np.flatnonzero(before != after)
    assert [(one.id, one.true, one.from_, one.to) for one in said.flips] == [
        (ids[k], names[labels[k]], names[before[k]], names[after[k]]) for k in flipped
    ]
    assert said.right_to_wrong == ((before == labels) & (after != labels)).sum()
    assert said.wrong_to_right == ((before != labels) & (after == labels)).sum()
    low, high = said.interval
    assert low <= said.change <= high
    assert 0 <= said.p <= 1


def test_int8_is_close_small_and_made_of_int8(done: tuple[RunDir, Quantized]) -> None:
    run, said = done
    assert abs(said.change) <= 2.0
    assert said.within_budget
    assert said.bytes_int8 <= 0.3 * said.bytes_fp32
    assert said.bytes_int8 == (run.exports / "model.int8.onnx").stat().st_size
    assert said.bytes_fp32 == (run.exports / "model.onnx").stat().st_size
    assert said.left_in_float == ()
    assert said.always_float == ("blocks.0.0",)
    graph = onnx.load(run.exports / "model.int8.onnx").graph
    held = {one.name: one for one in graph.initializer}
    floats = [n for n in graph.node if n.op_type in ("Conv", "Gemm") and held.get(n.input[1]) is not None]
    assert len(floats) == 1  # the others' weights come out of DequantizeLinear
    assert said.layers == 7


def test_the_record_and_the_graph_say_the_same(done: tuple[RunDir, Quantized]) -> None:
    run, said = done
    record = json.loads((run.exports / "quantize.json").read_bytes())
    assert record["flips"] == len(record["flipped"]) == len(said.flips)
    assert [{"id": f.id, "true": f.true, "from": f.from_, "to": f.to} for f in said.flips] == record["flipped"]
    plain = json.loads(json.dumps(summary(said))) | {"path": "model.int8.onnx"}
    assert {key: record[key] for key in plain} == plain
    assert isinstance(record["hardware"]["vnni"], bool)
    assert {"onnxruntime", "lucidate"} <= record["versions"].keys()
    before, after = (
        {one.key: one.value for one in onnx.load(run.exports / name).metadata_props}
        for name in ("model.onnx", "model.int8.onnx")
    )
    assert after.items() >= before.items()
    assert after["weights_sha256"] == sha256(run.weights)
    assert json.loads(after["quantized"])["method"] == said.method
    assert not onnx.load(run.exports / "model.int8.onnx").graph.value_info


def test_the_answers_are_kept_and_the_opening_of_the_test_split_counted(
    done: tuple[RunDir, Quantized], trained: RunDir
) -> None:
    run, said = done
    table = Predictions.load(run.predictions("test-onnx-int8"))
    assert table.accuracy == said.accuracy_int8
    images = open_data(run).pack.images[table.index]
    np.testing.assert_allclose(open_predictor("onnx-int8", run)(images), table.logits, atol=1e-4)
    before, after = (RunCard.load(one.card).results for one in (trained, run))
    assert after.test_openings == before.test_openings + 1
    assert after.test_accuracy == before.test_accuracy


def test_the_choice_is_made_on_validation(done: tuple[RunDir, Quantized]) -> None:
    run, said = done
    tried = said.validation["tried"]
    assert [one["method"] for one in tried] == ["minmax", "percentile", "mse"]
    assert said.method == f"static-{min(tried, key=lambda one: one['flips'])['method']}"
    _, labels, before = predicted(run, "model.onnx", "validation")
    _, _, after = predicted(run, "model.int8.onnx", "validation")
    assert said.validation["accuracy_fp32"] == pytest.approx((before == labels).mean())
    assert said.validation["accuracy_int8"] == pytest.approx((after == labels).mean())
    assert said.validation["images"] == len(labels)


def test_a_layer_that_int8_ruins_is_the_one_left_in_float(own: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    floats = quantize.prepared((own.exports / "model.onnx").read_bytes())
    ruined = floats.layers[0]
    node = next(one for one in floats.model.graph.node if one.name == ruined.node)
    lost: list[Histogram] = []
    watched = int8_choice.observe

    def observe(*arguments: Any, **options: Any) -> dict[str, Histogram]:
        seen = watched(*arguments, **options)
        lost.append(seen[node.input[0]])
        return seen

    def narrow(seen: Histogram, method: Method) -> tuple[float, float]:
        return (0.0, 1e-3) if seen is lost[0] else span(seen, method)

    monkeypatch.setattr(int8_choice, "observe", observe)
    monkeypatch.setattr(int8_choice, "span", narrow)
    listener = Listener()
    said = quantize_run(own, budget=2.0, reporter=listener)
    assert said.left_in_float == (ruined.name,)
    assert said.within_budget
    assert said.layers == 6
    assert len(said.validation["tried"]) == 4
    assert all(one["change"] < -2.0 for one in said.validation["tried"][:3])
    assert any("beyond the budget" in one for one in listener.said)
    metadata = {one.key: one.value for one in onnx.load(own.exports / "model.int8.onnx").metadata_props}
    assert json.loads(metadata["quantized"])["left_in_float"] == [ruined.name]


def test_where_no_form_is_within_the_budget_the_best_one_is_kept_and_it_is_said(
    own: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def narrow(seen: Histogram, method: Method) -> tuple[float, float]:  # noqa: ARG001
        return 0.0, 1e-3

    monkeypatch.setattr(int8_choice, "span", narrow)
    with pytest.raises(SystemExit) as ended:
        main(["quantize", str(own.path), "--budget", "0", "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == 0
    answer = json.loads(out.splitlines()[-1])
    assert not answer["within_budget"]
    assert "warning" in err
    changes = [one["change"] for one in answer["validation"]["tried"]]
    assert answer["validation"]["change"] == max(changes) < 0
    assert len(answer["left_in_float"]) <= 4


def test_views_and_gelu_are_quantized_too(tmp_path: Path) -> None:
    run = digits_run(
        tmp_path / "run",
        "train.epochs=1",
        "model.widths=[8,16,16]",
        "data.train_size=320",
        "predict.views=mirror-shift",
        recipe="fast",
    )
    said = quantize_run(run, budget=100.0)
    graph = onnx.load(run.exports / "model.int8.onnx")
    assert {one.key: one.value for one in graph.metadata_props}["views"] == "mirror-shift"
    assert sum(node.op_type == "Gelu" for node in graph.graph.node) == 7
    assert said.always_float == ("whiten",)
    assert said.layers == 7
    assert [one["method"] for one in said.validation["tried"]] == ["minmax", "percentile", "mse"]


def test_the_command_says_what_it_costs(own: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["quantize", str(own.path), "--budget", "2"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    record = json.loads((own.exports / "quantize.json").read_bytes())
    assert f"{record['bytes_int8'] / record['bytes_fp32']:.2f} ×" in out
    assert f"{record['right_to_wrong']} right → wrong" in out
    for flip in record["flipped"][:10]:
        assert any(flip["id"] in line and f"→ {flip['to']}" in line for line in out.splitlines())
    assert out.splitlines()[-1] == str(own.exports / "model.int8.onnx")


@pytest.mark.parametrize(
    ("arguments", "spoil", "message"),
    [
        (["--budget", "-1"], None, "--budget: expected points of accuracy, 0 or more, received -1"),
        (["--budget", "nan"], None, "--budget: expected points of accuracy"),
        ([], "weights.safetensors", "run: expected a finished run"),
    ],
)
def test_mistakes_are_said_in_one_line_and_leave_nothing(
    trained: RunDir,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    spoil: str | None,
    message: str,
) -> None:
    run = RunDir(shutil.copytree(trained.path, tmp_path / "run"))
    if spoil:
        (run.path / spoil).unlink()
    with pytest.raises(SystemExit) as ended:
        main(["quantize", str(run.path), *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not run.exports.exists()


def test_a_split_that_was_left_behind_is_drawn_again(own: RunDir) -> None:
    data = open_data(own)
    stored = Splits.load(own.splits)
    own.splits.unlink()
    for (name, rows), (_, again) in zip(stored, open_data(own).splits, strict=True):
        np.testing.assert_array_equal(rows, again, err_msg=name)
    recipe = data.card.recipe.model_copy(update={"data": data.card.recipe.data.model_copy(update={"train_size": 100})})
    with pytest.raises(RunError, match="the split that the run was trained with"):
        _ = RunData(own, data.card.model_copy(update={"recipe": recipe}), data.pack).splits


def test_without_its_images_a_run_is_refused(trained: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(trained.path, tmp_path / "run"))
    card = RunCard.load(run.card)
    gone = card.data.model_copy(update={"source": str(tmp_path / "gone"), "path": None})
    card.model_copy(update={"data": gone}).save(run.card)
    with pytest.raises(SourceError, match="gone"):
        quantize_run(run)
    assert not run.exports.exists()


def test_a_model_without_such_layers_is_refused(own: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    floats = quantize.prepared((own.exports / "model.onnx").read_bytes())
    del floats.model.graph.node[:]
    monkeypatch.setattr(quantize, "prepared", lambda _: floats)
    with pytest.raises(ExportError, match="layers that int8 can compute"):
        quantize_run(own)
