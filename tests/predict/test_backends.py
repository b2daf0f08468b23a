"""A model's answers by ONNX Runtime: the same as torch's, and never those of other weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from fakes import Listener
from lucidate.cli.main import main
from lucidate.core.errors import ExportError, RunError
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import open_pack
from lucidate.data.splits import Splits, open_data
from lucidate.models.checkpoint import load_predictor
from lucidate.predict.backends import find_graph, open_predictor
from lucidate.predict.infer import predict_rows, predict_run
from lucidate.predict.new_data import predict_source
from made_runs import digits_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Not to be written into."""
    run = digits_run(
        tmp_path_factory.mktemp("backends") / "digits", "train.epochs=1", "model.widths=[8,16,32]", "model.dense=32"
    )
    predict_run(run, "test")
    return run


@pytest.fixture(scope="module")
def exported(trained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same with `export/model.onnx`, made by the first prediction that asks for it. Not to be written into."""
    run = RunDir(shutil.copytree(trained.path, tmp_path_factory.mktemp("exported") / "digits"))
    main_ends(["predict", str(run.path), "--backend", "onnx"], 0)
    return run


@pytest.fixture
def own(exported: RunDir, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(exported.path, tmp_path / "own"))


def main_ends(arguments: list[str], status: int) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == status


def said(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[dict[str, object], str]:
    """(the object that `--json` prints, what was said beside it)."""
    main_ends([*arguments, "--json"], 0)
    out, err = capsys.readouterr()
    return json.loads(out.splitlines()[-1]), err


def mistake(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    main_ends(arguments, 2)
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_graph_answers_as_torch_and_its_table_stands_beside_torchs(exported: RunDir, trained: RunDir) -> None:
    by_torch, by_graph = (Predictions.load(exported.predictions(name)) for name in ("test", "test-onnx"))
    np.testing.assert_array_equal(by_graph.ids, by_torch.ids)
    np.testing.assert_allclose(by_graph.logits, by_torch.logits, atol=1e-4)
    before, after = (RunCard.load(run.card).results for run in (trained, exported))
    assert after.test_accuracy == before.test_accuracy
    assert after.test_openings == before.test_openings + 1


def test_both_are_the_same_function_of_pixels(exported: RunDir) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    by_torch, by_graph = load_predictor(exported)(images), open_predictor("onnx", exported)(images)
    assert by_torch.shape == (5, 10)
    assert by_torch.dtype == by_graph.dtype == np.float32
    np.testing.assert_allclose(by_graph, by_torch, atol=1e-4)


@pytest.mark.parametrize("images", [[], ["--data", "digits"]])
def test_a_graph_is_asked_without_torch(images: list[str], own: RunDir, tmp_path: Path) -> None:
    words = ["predict", str(own.path), *images, *(["--out", str(tmp_path / "out.parquet")] if images else [])]
    code = (
        "import sys; sys.modules['torch'] = None  # importing it fails\n"
        "from lucidate.cli.main import app\n"
        f"app({[*words, '--backend', 'onnx']}, standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "images/s by onnx" in done.stdout


def test_rows_are_answered_in_order_whatever_the_batch() -> None:
    images = np.arange(20, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    rows, calls, listener = np.array([7, 3, 11, 19, 0]), [], Listener()

    class Corner:
        batch_size = 2

        def start(self, batch: np.ndarray) -> np.ndarray:
            calls.append(len(batch))
            return batch[:, 0, 0, :2].astype(np.float32)

        def collect(self, started: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(started)

    logits = predict_rows(Corner(), images, rows, reporter=listener, task="asking")  # type: ignore[arg-type]
    assert logits.tolist() == [[row, row] for row in rows.tolist()]
    assert calls == [2, 2, 1]
    assert listener.advanced[-1] == ("asking", 5, 5)


def test_the_first_use_exports_and_says_so_the_second_does_not(
    trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(shutil.copytree(trained.path, tmp_path / "run"))
    command = ["predict", str(run.path), "--backend", "onnx", "--split", "validation"]
    first, err = said(capsys, command)
    assert "not there yet; exporting it first" in err
    assert first["backend"] == "onnx"
    assert first["images"] / first["images_per_second"] <= first["seconds"]  # type: ignore[operator]
    second, err = said(capsys, command)
    assert "export" not in err
    assert second["accuracy"] == first["accuracy"]
    # Of other weights now, it is not used as it is.
    other = run.weights.read_bytes()
    run.weights.write_bytes(other[:-4] + np.float32(1.5).tobytes())
    _, err = said(capsys, command)
    assert "made from other weights; exporting it first" in err


def test_a_graph_with_other_views_says_so(own: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    card = RunCard.load(own.card)
    asking = card.recipe.predict.model_copy(update={"views": "mirror-shift"})
    card.model_copy(update={"recipe": card.recipe.model_copy(update={"predict": asking})}).save(own.card)
    _, err = said(capsys, ["predict", str(own.path), "--backend", "onnx", "--split", "validation"])
    assert "answers with views 'one', where the recipe asks for 'mirror-shift'" in err


def test_torch_tells_its_speed_too(own: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    answer, _ = said(capsys, ["predict", str(own.path), "--split", "validation"])
    assert answer["backend"] == "torch"
    assert answer["images"] / answer["images_per_second"] <= answer["seconds"]  # type: ignore[operator]
    assert answer["predictions"] == str(own.predictions("validation"))


def test_other_images_and_files_are_answered_by_the_graph(
    own: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Predictions.load(own.predictions("test"))
    pack = open_data(own).pack
    folder = tmp_path / "photos"
    for row, label in zip(known.index[:40], known.labels[:40], strict=True):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pack.images[row]).save(folder / str(label) / f"{row:05d}.png")
    out = tmp_path / "answers.parquet"
    said(capsys, ["predict", str(own.path), "--data", str(folder), "--out", str(out), "--backend", "onnx"])
    expected = dict(zip(known.index.tolist(), known.logits, strict=True))
    for name, logits in zip(*(getattr(Predictions.load(out), key) for key in ("ids", "logits")), strict=True):
        np.testing.assert_allclose(logits, expected[int(Path(str(name)).stem)], atol=1e-4)
    files = sorted(map(str, folder.rglob("*.png")))[:3]
    by_graph, _ = said(capsys, ["predict", str(own.path), *files, "--backend", "onnx"])
    by_torch, _ = said(capsys, ["predict", str(own.path), *files])
    assert [one["classes"] for one in by_graph["images"]] == [one["classes"] for one in by_torch["images"]]  # type: ignore[attr-defined]


def test_views_are_the_models_own_whatever_images_it_is_shown(own: RunDir, tmp_path: Path) -> None:
    """A folder's images may be mirrored; digits, of which this model was made, may not."""
    card = RunCard.load(own.card)
    recipe = card.recipe.model_copy(update={"predict": card.recipe.predict.model_copy(update={"views": "mirror"})})
    card.model_copy(update={"recipe": recipe}).save(own.card)
    pack = open_data(own).pack
    for row in range(20):
        place = tmp_path / "photos" / str(pack.labels[row])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pack.images[row]).save(place / f"{row}.png")
    found = predict_source(own, str(tmp_path / "photos"), split="test")
    assert open_pack(str(tmp_path / "photos")).flips
    rows = [int(Path(str(name)).stem) for name in found.ids]
    np.testing.assert_allclose(found.logits, load_predictor(own)(pack.images[rows]), atol=1e-4)


def test_a_run_without_its_file_of_splits_is_divided_again(own: RunDir) -> None:
    before = Predictions.load(own.predictions("test"))
    own.splits.unlink()
    after = predict_run(own, "test")
    np.testing.assert_array_equal(after.ids, before.ids)


def test_an_int8_graph_must_have_been_made_and_of_these_weights(
    own: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(own.path), "--backend", "onnx-int8"]
    line = mistake(capsys, command)
    assert "received no file" in line
    assert f"lucidate quantize {own.path}" in line
    path = own.exports / "model.int8.onnx"
    shutil.copy(own.exports / "model.onnx", path)  # of the same weights, that is what counts here
    assert isinstance(open_predictor("onnx-int8", own)(np.zeros((1, 8, 8, 3), np.uint8)), np.ndarray)
    own.weights.write_bytes(own.weights.read_bytes()[:-4] + np.float32(1.5).tobytes())
    line = mistake(capsys, command)
    assert "received one of others" in line
    assert f"lucidate quantize {own.path}" in line
    path.write_bytes(b"no graph")
    assert "expected a graph that ONNX Runtime can run" in mistake(capsys, command)


def test_a_graph_that_does_not_name_its_weights_is_judged_by_its_age(own: RunDir) -> None:
    path = own.exports / "model.onnx"
    assert find_graph("onnx", own)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    assert find_graph("onnx", own)
    later = path.stat().st_mtime + 10
    os.utime(own.weights, (later, later))
    assert find_graph("onnx", own) is None


def test_mistakes_are_said_in_one_line(own: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'onnx-int8'" in mistake(capsys, ["predict", str(own.path), "--backend", "onnx-int4"])
    assert "expected cpu" in mistake(capsys, ["predict", str(own.path), "--backend", "onnx", "--device", "cuda"])
    with pytest.raises(RunError, match="expected one of torch, onnx, onnx-int8"):
        open_predictor("tensorrt", own)
    shutil.rmtree(own.exports)
    with pytest.raises(ExportError, match="lucidate export"):
        open_predictor("onnx", own)


def test_an_unknown_split_is_refused_before_anything_is_written(
    own: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(own.path.rglob("*"))
    assert "split: expected" in mistake(capsys, ["predict", str(own.path), "--backend", "onnx", "--split", "dev"])
    assert sorted(own.path.rglob("*")) == before
    assert len(Splits.load(own.splits).test) == 1258
