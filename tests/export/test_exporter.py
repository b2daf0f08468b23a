"""Runs as ONNX graphs and torch programs: the same model, wherever it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from random_runs import digits_run, ensemble_run, random_run

from lucidate.cli.main import main
from lucidate.core.errors import ExportError
from lucidate.core.recipe import ModelRecipe
from lucidate.core.records import Predictions, RunCard, softmax
from lucidate.core.run import RunDir
from lucidate.data.decode import resize
from lucidate.data.preprocess import Preprocess
from lucidate.export import exporter as room
from lucidate.export.exporter import export_run
from lucidate.export.onnx import IR_VERSION, OPSET, export_onnx, resized_to
from lucidate.export.parity import TOLERANCE, compare, synthetic_images
from lucidate.export.torch_program import exportable, load_program
from lucidate.models.checkpoint import load_model
from lucidate.models.ensemble import Averaged
from lucidate.models.onnx_session import open_session
from lucidate.models.predictor import InferenceConfig, Views, model_logits
from lucidate.predict.infer import predict_run

SMALL = ModelRecipe(name="compact", widths=[8, 16], dropout=[0.2, 0.2], dense=16)
PLAIN = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = np.load(sys.argv[2])
logits, probabilities = session.run(["logits", "probabilities"], {"images": images})
assert not [name for name in sys.modules if name.split(".")[0] in ("lucidate", "torch")]
np.savez(sys.argv[3], logits=logits, probabilities=probabilities)
print(json.dumps(session.get_modelmeta().custom_metadata_map))
"""


def noise(size: int, count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def asked_as_the_run_is(run: RunDir, images: NDArray[np.uint8], *, views: Views | None = None) -> NDArray[np.float64]:
    """Probabilities as `predict` would give them, by none of the code under test."""
    card, model = RunCard.load(run.card), load_model(run)
    preprocess = Preprocess.from_dict(card.preprocess)
    asked = InferenceConfig(preprocess, views or card.recipe.predict.views, card.data.flips)
    with torch.inference_mode():
        parts = [
            model_logits(model, preprocess.normalize(torch.from_numpy(images[start : start + 100])), asked)
            for start in range(0, len(images), 100)
        ]
    return softmax(torch.cat(parts).numpy())


@pytest.mark.parametrize(
    ("model", "views", "count"),
    [
        pytest.param(ModelRecipe(name="compact"), "one", 1000, marks=pytest.mark.slow),
        pytest.param(
            ModelRecipe(name="fastnet", widths=[8, 16, 16], depth=3), "mirror-shift", 1000, marks=pytest.mark.slow
        ),
        pytest.param(ModelRecipe(name="timm:resnet50"), "one", 16, marks=pytest.mark.slow),
        pytest.param(
            ModelRecipe(name="timm:efficientnet_b0", fit="upsample", size=48), "mirror", 16, marks=pytest.mark.slow
        ),
        pytest.param(ModelRecipe(name="timm:vit_tiny_patch16_224"), "one", 16, marks=pytest.mark.slow),
    ],
    ids=lambda value: value.name if isinstance(value, ModelRecipe) else str(value),
)
def test_a_graph_answers_as_the_run(model: ModelRecipe, views: Views, count: int, tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", model, views=views, size=32)
    path = tmp_path / "model.onnx"
    export_onnx(run, path)
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    images = noise(32, count)
    session = open_session(path)
    answers = [session.run(None, {"images": images[part]}) for part in (slice(0, 1), slice(1, count))]
    logits, probabilities = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    expected = asked_as_the_run_is(run, images)
    assert logits.dtype == probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=TOLERANCE)
    np.testing.assert_allclose(softmax(logits), expected, atol=TOLERANCE)
    assert (probabilities.argmax(1) == expected.argmax(1)).all()
    assert np.ptp(expected, axis=0).max() > 100 * TOLERANCE  # or any graph would do
    # Every normalization is folded into a convolution, and views share one network.
    kinds = [node.op_type for node in graph.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == sum(isinstance(layer, torch.nn.Conv2d) for layer in load_model(run).modules())
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)
    assert str(Path(torch.__file__).parent).encode() not in path.read_bytes()


def answers_of_an_ensemble(run: RunDir, images: NDArray[np.uint8], *, views: Views | None) -> NDArray[np.float64]:
    model = load_model(run)
    if views:
        model.settings = tuple(member.model_copy(update={"views": views}) for member in model.settings)
    with torch.inference_mode():
        return softmax(model(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).numpy())


@pytest.mark.slow
def test_an_ensemble_is_one_graph(tmp_path: Path) -> None:
    run = ensemble_run(tmp_path / "run")
    path = tmp_path / "model.onnx"
    export_onnx(run, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    images, session = noise(32, 1000), open_session(path)
    expected = answers_of_an_ensemble(run, images, views=None)
    answers = session.run(["probabilities"], {"images": images})[0]
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    assert (answers.argmax(1) == expected.argmax(1)).all()
    assert session.get_modelmeta().custom_metadata_map["views"] == "members"


@pytest.mark.parametrize("averaged", ["softmax", "logits"])
@pytest.mark.parametrize("views", [None, "one"])
def test_an_ensemble_is_one_module(averaged: Averaged, views: Views | None, tmp_path: Path) -> None:
    run = ensemble_run(tmp_path / "run", averaged=averaged)
    images = noise(32, 50)
    with torch.inference_mode():
        logits, probabilities = exportable(run, views=views)(torch.from_numpy(images))
    expected = answers_of_an_ensemble(run, images, views=views)
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(softmax(logits.numpy()), expected, atol=1e-5)


@pytest.mark.slow
def test_it_runs_in_plain_onnxruntime_and_says_what_it_is(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", SMALL, views="mirror-shift", size=24, classes=4)
    path = tmp_path / "model.onnx"
    export_onnx(run, path)
    images = noise(24, 8)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", PLAIN, str(path), str(tmp_path / "images.npy"), str(tmp_path / "answers.npz")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    answers = np.load(tmp_path / "answers.npz")
    np.testing.assert_allclose(answers["probabilities"], asked_as_the_run_is(run, images), atol=1e-5)
    about = json.loads(done.stdout)
    assert json.loads(about["class_names"]) == [f"class {number}" for number in range(4)]
    assert json.loads(about["preprocess"])["size"] == 24
    assert about["views"] == "mirror-shift"
    run_card = json.loads(about["passport"])
    assert {"name", "model", "results", "data", "seed", "commit", "versions", "notes"} <= run_card.keys()
    assert run_card["notes"] == ["random"]
    assert about["opset"] == str(OPSET)
    assert json.loads(about["onnxruntime"])["range"].startswith(">=")
    graph = onnx.load(path)
    assert graph.ir_version == IR_VERSION
    values = (*graph.graph.input, *graph.graph.output)
    sides = [[side.dim_value or side.dim_param for side in value.type.tensor_type.shape.dim] for value in values]
    assert sides == [["batch", "height", "width", 3], ["batch", 4], ["batch", 4]]
    export_onnx(run, tmp_path / "again.onnx", views="mirror-shift")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


@pytest.fixture(scope="module")
def resizing() -> Any:
    """A graph that does nothing but bring images to 32 pixels."""
    sides = ["batch", 32, 32, 3]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["same"])],
        "nothing",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, sides)],
        [helper.make_tensor_value_info("same", TensorProto.UINT8, sides)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    resized_to(model, 32)
    onnx.checker.check_model(model, full_check=True)
    return open_session(model.SerializeToString())


def test_images_of_the_right_size_stay_as_they_are(resizing: Any) -> None:
    images = noise(32, 5)
    assert (resizing.run(None, {"images": images})[0] == images).all()


@pytest.mark.parametrize(
    ("height", "width"), [(33, 32), (32, 47), (31, 90), (7, 5), (1, 300), (500, 20), (97, 50), (64, 64), (90, 61)]
)
def test_others_are_resized_as_files_are(height: int, width: int, resizing: Any) -> None:
    images = np.random.default_rng(height).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    mine = resizing.run(None, {"images": images})[0].astype(int)
    theirs = np.stack([resize(image, size=32) for image in images]).astype(int)
    assert mine.shape == theirs.shape
    assert np.abs(mine - theirs).max() <= 1
    assert (mine != theirs).mean() < 0.005


@pytest.mark.parametrize(("height", "width"), [(320, 480), (97, 33)])
def test_large_and_tall_images_are_nearly_so(height: int, width: int, resizing: Any) -> None:
    """Pillow averages the large first, and filters the columns of the tall first."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    image = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    apart = np.abs(resizing.run(None, {"images": image[None]})[0][0].astype(int) - resize(image, size=32))
    assert apart.max() <= 5
    assert apart.mean() < 1


@pytest.mark.slow
def test_a_torch_program_answers_as_the_run(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", SMALL, views="mirror-shift", size=24)
    exported = export_run(run, "torch")
    assert exported.path == run.exports / "model.pt2"
    images = noise(24, 7)
    answer = load_program(exported.path)
    np.testing.assert_allclose(answer(images), asked_as_the_run_is(run, images), atol=1e-5)
    assert answer(images[:1]).shape == (1, 10)
    with zipfile.ZipFile(exported.path) as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    assert not any(content.startswith((b"\x80\x02", b"PK")) for content in contents), "a pickle"
    assert not any(str(Path(torch.__file__).parent).encode() in content for content in contents)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with its predictions of the test split."""
    run = digits_run(tmp_path_factory.mktemp("digits") / "run", SMALL, views="mirror-shift")
    predict_run(run, "test")
    return run


def test_the_whole_test_split_is_compared_and_not_opened_again(digits: RunDir) -> None:
    before = digits.card.read_bytes()
    table = Predictions.load(digits.predictions("test"))
    exported = export_run(digits, "onnx")
    assert exported.path == digits.exports / "model.onnx"
    assert exported.parity.holds
    assert (exported.parity.split, exported.parity.images) == ("test", len(table))
    assert exported.reference == "predictions/test.parquet"
    assert exported.latency_ms.keys() == {"1", "32"}
    entry = json.loads((digits.exports / "parity.json").read_text())["onnx"]
    assert entry["path"] == "model.onnx"
    assert entry["max_abs_diff"] == exported.parity.max_abs_diff <= TOLERANCE
    assert entry["disagreements"] == 0
    assert entry["bytes"] == exported.path.stat().st_size == exported.bytes
    assert digits.card.read_bytes() == before


def test_formats_share_parity_and_one_view_is_compared_with_one_view(digits: RunDir, tmp_path: Path) -> None:
    export_run(digits, "torch", views="one")
    parity = json.loads((digits.exports / "parity.json").read_text())
    assert parity["torch"]["views"] == "one"
    assert parity["torch"]["reference"] == "torch"
    assert parity["torch"]["split"] == "test"
    images = synthetic_images(8, 50)
    answers = load_program(digits.exports / "model.pt2")(images)
    np.testing.assert_allclose(answers, asked_as_the_run_is(digits, images, views="one"), atol=1e-5)
    assert np.abs(answers - asked_as_the_run_is(digits, images)).max() > 10 * TOLERANCE
    before = parity.copy()
    elsewhere = export_run(digits, "torch", out=tmp_path / "deep" / "mine.pt2")
    assert elsewhere.path.exists()
    assert json.loads((digits.exports / "parity.json").read_text()) == before
    beside = json.loads((tmp_path / "deep" / "mine.pt2.parity.json").read_text())
    assert beside["torch"]["max_abs_diff"] == elsewhere.parity.max_abs_diff


def test_predictions_made_elsewhere_do_not_condemn_a_copy(tmp_path: Path) -> None:
    run = digits_run(tmp_path / "run", SMALL)
    predict_run(run, "test")
    table = Predictions.load(run.predictions("test"))
    drifted = vars(table)["logits"] + np.random.default_rng(0).normal(0, 0.05, table.logits.shape)
    fields = {
        key: getattr(table, key) for key in ("ids", "index", "labels", "class_names", "dataset", "split", "model")
    }
    Predictions(**fields, logits=drifted.astype(np.float32)).save(run.predictions("test"))
    exported = export_run(run, "torch")
    assert exported.parity.holds
    assert exported.reference == "torch"
    assert "predictions/test.parquet differs" in exported.note


def test_a_copy_that_answers_otherwise_is_not_kept(digits: RunDir, tmp_path: Path, monkeypatch: Any) -> None:
    other = digits_run(tmp_path / "other", ModelRecipe(name="compact", widths=[4], dropout=[0.0], dense=4))
    torchs = room.FORMATS["torch"]
    changed = replace(torchs, write=lambda _run, path, *, views: torchs.write(other, path, views=views))
    monkeypatch.setitem(room.FORMATS, "torch", changed)
    stood = digits.exports / "model.pt2"
    content = stood.read_bytes() if stood.exists() else None
    with pytest.raises(ExportError, match=r"expected a copy that answers as torch to 0\.0001.*nothing was kept"):
        export_run(digits, "torch")
    assert (stood.read_bytes() if stood.exists() else None) == content
    with pytest.raises(ExportError):
        export_run(digits, "torch", out=tmp_path / "new" / "model.pt2")
    assert not (tmp_path / "new").exists()


def test_without_its_images_made_up_ones_are_compared(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", SMALL, size=16)
    exported = export_run(run, "onnx")
    assert (exported.parity.split, exported.parity.images) == ("synthetic", 1000)
    assert "are not on this machine" in exported.note
    images = synthetic_images(16)
    assert (images == synthetic_images(16)).all()
    assert len(np.unique(images.reshape(1000, -1), axis=0)) == 1000


def test_what_counts_as_the_same() -> None:
    torchs = np.array([[0.6, 0.4], [0.50002, 0.49998], [0.1, 0.9]])
    tied = np.array([[0.6, 0.4], [0.49998, 0.50002], [0.1, 0.9]], np.float32)
    found = compare(tied, torchs, split="test")
    assert (found.disagreements, found.ties, found.images) == (1, 1, 3)
    assert found.holds
    assert found.max_abs_diff == pytest.approx(4e-5, rel=1e-2)
    apart = compare(np.array([[0.6, 0.4], [0.5, 0.5], [0.1002, 0.8998]]), torchs, split="test")
    assert not apart.holds
    assert apart.disagreements == 0
    swapped = compare(np.array([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9]]), torchs, split="test", tolerance=0.2)
    assert swapped.holds  # with so wide a tolerance, it is a tie
    wrong = compare(np.array([[0.49, 0.51], [0.5, 0.5], [0.1, 0.9]]), torchs, split="test", tolerance=0.15)
    assert (wrong.disagreements, wrong.ties) == (1, 0)
    assert not wrong.holds
    assert not compare(np.full((3, 2), np.nan), torchs, split="test").holds


def test_the_command(digits: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["export", *arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    status, out, err = call(str(digits.path), "--format", "onnx", "--out", str(tmp_path / "m.onnx"), "--json")
    assert status == 0, err
    answer = json.loads(out)  # nothing else stands on standard output
    keys = {"run", "format", "path", "bytes", "max_abs_diff", "disagreements", "images", "split", "latency_ms"}
    assert keys <= answer.keys()
    assert answer["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert answer["max_abs_diff"] <= TOLERANCE
    transformer = random_run(tmp_path / "vit", ModelRecipe(name="timm:vit_tiny_patch16_224"))
    cases = [
        ([str(digits.path), "--format", "tflite"], "--format: expected one of onnx, keras, torch, received 'tflite'"),
        ([str(digits.path), "--views", "two"], "--views: expected"),
        ([str(digits.path), "--out", "model.bin"], "--out: expected a name that ends in .onnx"),
        ([str(tmp_path / "none")], "expected a folder that holds a run"),
        ([str(transformer.path), "--format", "keras"], "expected compact or fastnet for keras"),
    ]
    for arguments, words in cases:
        status, _, err = call(*arguments)
        assert status == 2
        assert err.splitlines()[-1].startswith("error: ")
        assert words in err.splitlines()[-1]
    assert not transformer.exports.exists()


def test_a_file_that_was_brought_is_not_exported(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", SMALL)
    text = json.loads(run.card.read_text())
    text["recipe"]["model"] = {"name": "onnx", "outputs": "logits", "layout": "NCHW"}
    run.card.write_text(json.dumps(text))
    with pytest.raises(ExportError, match="one that came as a file"):
        room.views_inside(RunCard.load(run.card), None)
        export_onnx(run, tmp_path / "m.onnx")
