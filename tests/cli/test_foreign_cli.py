"""A run's network, brought back as somebody's plain ONNX graph: every verb takes it, and says the same of it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cli.conftest import Road
from cli.test_explain import call, mistake
from graphs import TENSORFLOW, graph, rewritten, write_toml
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.models.checkpoint import load_model
from lucidate.models.keras import keras_on_torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def theirs(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.onnx and its TOML, in a folder of their own."""
    folder = tmp_path_factory.mktemp("theirs")
    card, model = RunCard.load(road.run.card), load_model(road.run)
    model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with warnings.catch_warnings():
        # The older exporter, which is quicker, says that it is older.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, 8, 8),),
            folder / "net.onnx",
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )
    mean, std = (list(card.preprocess[key]) for key in ("mean", "std"))
    more = f'data = "{card.data.source}"\nseed = {card.seed}'
    pixels = f"mean = {mean}\nstd = {std}"
    write_toml(folder / "net.onnx", classes=card.classes, pixels=pixels, more=more)
    return folder / "net.onnx"


@pytest.fixture(scope="module")
def own(road: Road, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A copy of the run, to stand beside it."""
    folder = tmp_path_factory.mktemp("own") / "demo"
    shutil.copytree(road.run.path, folder)
    return RunDir(folder)


def test_it_is_predicted_when_asked_for(theirs: Path, own: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    answer = call(capsys, "gallery", str(theirs))
    run = theirs.parent / "net-onnx-run"
    assert Path(answer["gallery"]) == run / "gallery" / "index.html"
    page = Path(answer["gallery"]).read_text(encoding="utf-8")
    assert "elsewhere" in page
    assert "net.onnx" in page
    assert "--history" not in page
    assert "its members" not in page
    ours, other = (Predictions.load(RunDir(one).predictions("test")) for one in (own.path, run))
    assert answer["accuracy"] == ours.accuracy
    np.testing.assert_array_equal(ours.ids, other.ids)
    np.testing.assert_allclose(other.probabilities, ours.probabilities, atol=1e-5)
    again = call(capsys, "predict", str(theirs), "--split", "validation")
    assert again["accuracy"] == Predictions.load(own.predictions("validation")).accuracy


def test_it_is_compared_and_combined(
    theirs: Path, own: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = call(capsys, "compare", str(own.path), str(theirs), "--out", str(tmp_path / "page"))
    assert answer["fixed"] == answer["broken"] == 0
    assert "parameters, from elsewhere" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    out = tmp_path / "both"
    whole = call(capsys, "ensemble", str(own.path), str(theirs), "--out", str(out))
    assert whole["test_accuracy"] == answer["accuracy_a"]
    shutil.move(theirs, tmp_path / "away.onnx")  # the ensemble holds what it needs
    try:
        alone = call(capsys, "predict", str(out))
    finally:
        shutil.move(tmp_path / "away.onnx", theirs)
    assert alone["accuracy"] == whole["test_accuracy"]
    card, own_card = RunCard.load(out / "run.json"), RunCard.load(own.card)
    assert own_card.model.parameters < card.model.parameters <= 2 * own_card.model.parameters
    assert any("net.onnx" in note for note in card.notes)


def test_it_is_explained_without_gradients(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("occlusion", "eigencam"):
        answer = call(capsys, "explain", str(theirs), "--method", method)
        assert answer["trust"]["verdict"]
        assert answer["trust"]["randomization"]["mean"] < 0.9  # its weights were drawn anew
    Image.new("RGB", (40, 30), (90, 20, 200)).save(tmp_path / "photo.png")
    images = ["--images", str(tmp_path / "photo.png"), "--out", str(tmp_path)]
    answer = call(capsys, "explain", str(theirs), "--method", "occlusion", *images)
    assert Path(answer["images"][0]["picture"]).is_file()
    for method in ("gradcam", "integrated-gradients", "rollout"):
        said = mistake(capsys, "explain", str(theirs), "--method", method)
        assert "--method: expected eigencam or occlusion for an ONNX graph" in said


def test_its_report_claims_no_training(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lucidate.report.pdf.opening import model_facts

    answer = call(capsys, "report", str(theirs), "--out", str(tmp_path / "report.pdf"))
    assert answer["bytes"] > 10_000
    facts = dict(model_facts(RunCard.load(theirs.parent / "net-onnx-run" / "run.json")))
    assert "elsewhere" in facts["Model"]
    assert "Optimizer" not in facts
    call(capsys, "analyze", str(theirs))


def test_a_keras_file_is_explained_by_gradients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.keras"
    path.write_bytes(TENSORFLOW.read_bytes())
    write_toml(path, outputs="probabilities", pixels="mean = [0, 0, 0]\nstd = [1, 1, 1]\nscale = 255")
    Image.new("RGB", (8, 8), (90, 20, 200)).save(tmp_path / "photo.png")
    named = call(capsys, "predict", str(path), str(tmp_path / "photo.png"))
    for method in ("gradcam", "integrated-gradients"):
        answer = call(capsys, "explain", str(path), "--images", str(tmp_path / "photo.png"), "--method", method)
        assert answer["images"][0]["predicted"] == named["images"][0]["classes"][0]
        assert answer["images"][0]["confidence"] == pytest.approx(named["images"][0]["probabilities"][0], abs=1e-4)
        assert Path(answer["images"][0]["picture"]).parent == tmp_path / "mine-keras-run/explain/images"


def test_python_opens_it_too(theirs: Path) -> None:
    import lucidate

    run = lucidate.load(theirs)
    assert run.path == theirs.parent / "net-onnx-run"
    assert run.predict("test").accuracy > 0.5
    with pytest.raises(lucidate.LucidateError, match="history"):
        run.history  # noqa: B018


@pytest.mark.parametrize("verb", ["predict", "gallery", "analyze", "report", "explain", "ensemble", "compare"])
def test_mistakes_are_one_line(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files: dict[str, tuple[bytes, str]] = {
        "damaged.onnx": (b"\x08no graph", "damaged.onnx: expected an ONNX model"),
        "code.keras": (rewritten(lambda config: config.update({"class_name": "Lambda"})), "a Lambda layer"),
        "alone.onnx": (graph(tmp_path / "alone.onnx").read_bytes(), "alone.toml beside it, received none; write"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        before = sorted(tmp_path.iterdir())
        twice = [str(tmp_path / name)] * (2 if verb in ("ensemble", "compare") else 1)
        with pytest.raises(SystemExit) as ended:
            from lucidate.cli.main import main

            main([verb, *twice])
        out, err = capsys.readouterr()
        assert (ended.value.code, out, len(err.splitlines())) == (2, "", 1), err
        assert words in err
        assert sorted(tmp_path.iterdir()) == before


def test_images_are_asked_for_where_they_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = graph(tmp_path / "m.onnx")
    write_toml(path)
    for verb in (["gallery"], ["predict"], ["report"], ["analyze"], ["explain", "--method", "occlusion"]):
        said = mistake(capsys, *verb, str(path))
        assert 'write into m.toml beside it: data = "SRC"' in said


def test_its_backend_is_the_file_itself(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("onnx", "onnx-int8"):
        said = mistake(capsys, "predict", str(theirs), "--backend", name)
        assert f"--backend: expected torch, which asks the file net.onnx itself, received {name}" in said


def test_a_lambda_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file as Keras itself writes one, its code a trap that would leave a mark."""
    mark, path = tmp_path / "mark", tmp_path / "m.keras"

    def trap(values: Any) -> Any:
        mark.write_text("ran")
        return values

    keras = keras_on_torch()
    with keras.device("cpu"):
        inputs = keras.Input((8, 8, 3))
        values = keras.layers.Lambda(lambda values: trap(values))(inputs)
        keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(values)).save(path)
    mark.unlink()
    write_toml(path)
    said = mistake(capsys, "predict", str(path), "photo.png")
    assert "m.keras: expected layers alone, received a Lambda layer" in said
    assert not mark.exists()
