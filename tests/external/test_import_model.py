"""A model's file becomes a run beside it: what is declared is checked, what is missing is asked for in one line."""

from __future__ import annotations

import json
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fakes import Listener
from graphs import TENSORFLOW, graph, logits, outside, rewritten, write_toml
from lucidate.core.atomic import sha256
from lucidate.core.errors import LucidateError, RecipeError, RunError, SourceError, UnsafeFileError
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.external import import_model
from lucidate.external.import_model import open_run
from lucidate.models.checkpoint import load_model
from lucidate.models.keras import write_metadata
from lucidate.models.timm import timm
from lucidate.predict.infer import predict_first, predict_run
from lucidate.predict.new_data import predict_files

RGB = ("red", "green", "blue")
OWN = {"class_names": RGB, "preprocess": {"size": 8, "mean": [0.2, 0.4, 0.6], "std": [1, 1, 1], "inside": True}}


def photos(folder: Path, names: tuple[str, ...] = RGB, *, count: int = 12) -> Path:
    generator = np.random.default_rng(0)
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 120, (8, 8, 3))
            pixels[:, :, label % 3] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_a_graph_becomes_a_run(tmp_path: Path) -> None:
    path = graph(tmp_path / "mine.onnx")
    photos(tmp_path / "photos")
    write_toml(path, more='data = "photos"\nsplit = "80-10-10"\nseed = 3\nmirror = false')
    run = open_run(path)
    card = RunCard.load(run.card)
    assert run.path == tmp_path / "mine-onnx-run"
    assert card.origin is not None
    assert card.origin.sha256 == sha256(path)
    assert any(card.origin.sha256 in note and "mine.onnx" in note for note in card.notes)
    assert (card.status, card.seed, card.data.flips, card.split.scheme) == ("finished", 3, False, "80-10-10")
    assert card.split.sizes == {"train": 30, "validation": 3, "test": 3}
    assert card.preprocess == {"size": 8, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
    assert load_file(run.weights)["file"].numpy().tobytes() == path.read_bytes()
    assert card.classes == ("blue", "green", "red")  # in the order of the images, to which answers are brought
    predictions = predict_run(run, "test")
    pack = import_model.open_pack(tmp_path / "photos", image_size=8)
    pixels = torch.from_numpy(np.array(pack.images[predictions.index]))
    expected = logits(Preprocess.from_dict(card.preprocess).normalize(pixels).numpy())[:, [2, 1, 0]]
    np.testing.assert_allclose(predictions.logits, expected, rtol=1e-4, atol=1e-5)
    assert predictions.class_names == card.classes


def test_it_stays_until_file_or_toml_change(tmp_path: Path) -> None:
    path, listener = graph(tmp_path / "m.onnx"), Listener()
    photos(tmp_path / "photos")
    write_toml(path, more='data = "photos"')
    run = open_run(path, reporter=listener)
    predict_first(run, "test", reporter=listener)
    made, table = run.card.stat().st_mtime_ns, Predictions.load(run.predictions("test"))
    assert open_run(path, reporter=listener) == open_run(run.path) == run
    predict_first(run, "test", reporter=listener)
    assert RunCard.load(run.card).results.test_openings == 1
    assert run.weights.stat().st_mtime_ns < run.predictions("test").stat().st_mtime_ns
    graph(path, seed=1)
    assert not open_run(path).predictions("test").exists()
    predict_first(run, "test", reporter=listener)
    assert not np.allclose(Predictions.load(run.predictions("test")).logits, table.logits)
    write_toml(path, more='data = "photos"\nseed = 1')
    assert not open_run(path).predictions("test").exists()
    assert made != run.card.stat().st_mtime_ns
    assert [line for line in listener.said if "its run is kept in" in line]


def test_a_folder_that_is_moved_takes_its_images_along(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    path = graph(here / "m.onnx")
    photos(here / "photos")
    toml = write_toml(path, more='data = "photos"')
    toml.write_text("\ufeff" + toml.read_text(encoding="utf-8"), encoding="utf-8")  # as some editors begin a file
    open_run(path)
    here.rename(there)
    run = open_run(there / "m.onnx")
    assert RunCard.load(run.card).data.path == str(there / "photos")
    predict_first(run, "test", reporter=Listener())
    assert run.predictions("test").exists()


def test_files_of_one_name_have_runs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(TENSORFLOW.read_bytes())
    graph(tmp_path / "m.onnx", end="Softmax")
    write_toml(tmp_path / "m.onnx", outputs="probabilities", pixels="mean = [0, 0, 0]\nstd = [1, 1, 1]\nscale = 255")
    runs = [open_run(tmp_path / name) for name in ("m.onnx", "m.keras")]
    assert [run.path.name for run in runs] == ["m-onnx-run", "m-keras-run"]
    assert [RunCard.load(run.card).model.parameters for run in runs] == [124, 195]
    assert RunCard.load(runs[1].card).model.values == 207  # and the statistics of its BatchNormalization


def test_without_images_files_can_still_be_named(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", shape=("n", 8, 8, 3), kind="uint8", layout="NHWC")
    write_toml(path, pixels="", more="")
    Image.new("RGB", (8, 8), (10, 200, 30)).save(tmp_path / "photo.png")
    run = open_run(path)
    (answer,) = predict_files(run, [tmp_path / "photo.png"], top=3)
    pixels = np.full((1, 3, 8, 8), np.array([10, 200, 30])[:, None, None])
    scores = logits(pixels)[0]
    assert answer.classes[0] == RGB[scores.argmax()]
    assert sum(answer.probabilities) == pytest.approx(1)
    with pytest.raises(SourceError, match=r'data: .* m\.onnx .* write into m\.toml beside it: data = "SRC"'):
        predict_run(run, "test")


def test_our_own_files_need_no_toml(tmp_path: Path) -> None:
    shape = ("n", "h", "w", 3)
    path = graph(tmp_path / "m.onnx", shape=shape, kind="uint8", layout="NHWC", both=True, metadata=OWN)
    (tmp_path / "m.keras").write_bytes(TENSORFLOW.read_bytes())
    write_metadata(tmp_path / "m.keras", OWN)
    for run in (open_run(path), open_run(tmp_path / "m.keras")):
        card = RunCard.load(run.card)
        assert card.classes == RGB
        model: Any = load_model(run)
        assert model.options.gray == pytest.approx((51, 102, 153))
        assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    photos(tmp_path / "photos")
    path.with_suffix(".toml").write_text('data = "photos"')
    assert RunCard.load(open_run(path).card).data.images == 36
    path.with_suffix(".toml").write_text('classes = ["a", "b"]')
    with pytest.raises(RecipeError, match="unknown key 'classes'; expected one of data, split, seed, mirror"):
        open_run(path)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_timm_model_by_its_toml(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net: torch.nn.Module = timm.create_model(name, num_classes=3, **({"img_size": 32} if "vit" in name else {}))
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    photos(tmp_path / "photos")
    path = tmp_path / "mine.toml"
    head = f'model = "timm:{name}"\nweights = "w.safetensors"\ndata = "photos"'
    write_toml(path, outputs=None, pixels="size = 32\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]", more=head)
    run = open_run(path)
    assert run.path.name == "mine-run"
    card = RunCard.load(run.card)
    assert card.model.name == f"timm:{name}"
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(load_model(run)(images), net.eval()(images)[:, [2, 1, 0]], rtol=1e-4, atol=1e-4)
    assert len(predict_run(run, "validation")) == 3
    write_toml(
        path,
        outputs=None,
        classes=(*RGB, "more"),
        pixels="size = 32\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]",
        more=head,
    )
    with pytest.raises(LucidateError, match=r"expected a head of 4 classes in .* received none that fits"):
        open_run(path)


FULL = (
    'classes = ["red", "green", "blue"]\noutputs = "logits"\n[preprocess]\nsize = 8\nmean = [0, 0, 0]\nstd = [1, 1, 1]'
)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (None, ["m.toml beside it", "received none; write classes = [", "3 names", "outputs = ", "mean = ["]),
        ("", ["classes, outputs, preprocess in", "preprocess = {mean = ["]),
        (FULL.replace("outputs", "output"), ["outputs in", 'write outputs = "logits" (or "probabilities")']),
        (FULL + "\nstdd = [1, 1, 1]", ["unknown key 'preprocess.stdd'", "did you mean 'std'"]),
        ("clases = 3\n" + FULL, ["unknown key 'clases'", "did you mean 'classes'"]),
        (FULL.replace("std =", "sd ="), ["preprocess.std in", "under [preprocess] std = ["]),
        (FULL.replace("[1, 1, 1]", "[1, 0, 1]"), ["preprocess.std.1", "greater than 0"]),
        (FULL.replace("[0, 0, 0]", "[124, 116, 104]"), ["preprocess.mean", "from 0 to 1", "write scale = 255"]),
        (FULL.replace("[1, 1, 1]", "[0.2, 0.2, 0.2]\nscale = 255"), ["preprocess.std", "leave scale out"]),
        (FULL + '\ninterpolation = "bilinear"', ["preprocess.interpolation", "'bicubic'", "'bilinear'"]),
        (FULL.replace("size = 8", "size = 16"), ["preprocess.size: expected 8, which m.onnx takes, received 16"]),
        ('layout = "NHWC"\n' + FULL, ["layout: expected 'NCHW', by m.onnx, received 'NHWC'"]),
        (FULL.replace('"blue"', '"red"'), ["classes: expected different names, received 'red' twice"]),
        (FULL.replace(', "blue"', ""), ["classes: expected a name for each of the 3 outputs", "received 2"]),
        (FULL.replace('"logits"', '"scores"'), ["outputs: expected 'logits' or 'probabilities', received 'scores'"]),
        (FULL.replace('"logits"', '"probabilities"'), ["outputs: expected 'logits'", "no probabilities"]),
        ("seed = 3\n" + FULL, ["split, seed: expected only with data"]),
        ('data = "nowhere"\n' + FULL, ["data: ", "'nowhere'", "does not exist"]),
        ('data = "digits"\n' + FULL, ["of the model's 3 classes", "'0', '1', '2', '3' too and no 'red'"]),
        ("classes = [", ["m.toml: expected a TOML file", "does not parse"]),
    ],
)
def test_declarations_that_do_not_do(toml: str | None, words: list[str], tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx")
    if toml is not None:
        path.with_suffix(".toml").write_text(toml, encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LucidateError) as refused:
        open_run(path)
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_written_as_an_error_shows_it_is_accepted(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", shape=("n", "c", "h", "w"))
    with pytest.raises(RecipeError) as refused:
        open_run(path)
    shown = str(refused.value).partition("; write ")[2].partition(" (of values")[0]
    lines = [line.partition(" (")[0] for line in shown.split("; ")]
    assert [line.partition(" ")[0] for line in lines] == ["classes", "outputs", "layout", "preprocess"]
    path.with_suffix(".toml").write_text("\n".join(lines).replace('"DOG"', '"DOG", "COW"'), encoding="utf-8")
    assert RunCard.load(open_run(path).card).preprocess["size"] == 224


def test_graphs_whose_end_says_otherwise(tmp_path: Path) -> None:
    for end, why in (("Softmax", "ends in softmax"), ("shares", "add up to 1")):
        path = graph(tmp_path / "m.onnx", end=end)
        write_toml(path, outputs="logits")
        with pytest.raises(RecipeError, match=f"expected 'probabilities' for m.onnx, whose? ?.*{why}|which {why}"):
            open_run(path)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (("n", 1, 8, 8), "images of 3 colors, received one for 1"),
        (("n", 4, 8, 8), "images of 3 colors, received one for 4"),
        (("n", 3, 8, 16), "square images, received one for 8×16"),
        (("n", 3, 64), "input of four axes"),
        (("n", 192), "input of four axes"),
    ],
)
def test_inputs_that_are_no_images(shape: tuple[int | str, ...], words: str, tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", shape=shape)
    write_toml(path, more='layout = "NCHW"')
    with pytest.raises(LucidateError, match=words):
        open_run(path)


def test_bytes_have_no_mean(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", shape=("n", 8, 8, 3), kind="uint8", layout="NHWC")
    write_toml(path)
    with pytest.raises(RecipeError, match=r"unknown key 'preprocess\.mean'; expected one of size, interpolation"):
        open_run(path)


def test_files_that_are_not_opened(tmp_path: Path) -> None:
    for name in ("m.pt", "m.pth", "m.pkl", "m.ckpt"):
        (tmp_path / name).write_bytes(b"\x80\x04cposix\nsystem\n")
        with pytest.raises(UnsafeFileError, match=r"a pickle, .* nothing was opened: convert it"):
            open_run(tmp_path / name)
    for name, way in (("m.h5", "save it as .keras"), ("m.safetensors", "write m.toml"), ("m.tflite", "to ONNX")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(RunError, match=way):
            open_run(tmp_path / name)
    with pytest.raises(RunError, match=r"missing\.onnx, which does not exist"):
        open_run(tmp_path / "missing.onnx")
    with pytest.raises(RunError, match=r"run\.json"):
        open_run(tmp_path / "nowhere")
    outside(tmp_path / "m.onnx", "../secret")
    with pytest.raises(UnsafeFileError, match="nothing was read"):
        open_run(tmp_path / "m.onnx")
    (tmp_path / "m.keras").write_bytes(rewritten(lambda config: config.update({"class_name": "Lambda"})))
    with pytest.raises(UnsafeFileError, match=r"m\.keras: expected layers alone, received a Lambda layer"):
        open_run(tmp_path / "m.keras")


def test_tomls_that_name_no_model(tmp_path: Path) -> None:
    path, rest = tmp_path / "m.toml", FULL.replace('outputs = "logits"\n', "")
    cases = {
        "": 'expected model, weights, classes, preprocess, received none; write model = "timm:resnet50"',
        f'model = "resnet50"\nweights = "w"\n{rest}': 'such as "timm:resnet50", received',
        f'model = "timm:resnet50"\nweights = "w.pth"\n{rest}': "a pickle is not opened",
        f'model = "timm:resnet50"\nweights = "w.safetensors"\n{rest}': "does not exist",
    }
    for text, words in cases.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(LucidateError) as refused:
            open_run(path)
        assert words in str(refused.value)
    graph(tmp_path / "m.onnx")
    path.write_text("", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"which speaks of m\.onnx; name that one"):
        open_run(path)


def test_folders_that_are_taken_or_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = graph(tmp_path / "m.onnx")
    write_toml(path)
    (tmp_path / "m-onnx-run").mkdir()
    (tmp_path / "m-onnx-run" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"m-onnx-run to be free .* holds something else"):
        open_run(path)
    assert (tmp_path / "m-onnx-run" / "mine.txt").read_text() == "mine"
    (tmp_path / "m-onnx-run" / "mine.txt").unlink()
    (tmp_path / "m-onnx-run").rmdir()

    @contextmanager
    def closed(_: Path) -> Any:
        raise PermissionError(13, "Permission denied")
        yield

    monkeypatch.setattr(import_model, "atomic_path", closed)
    with pytest.raises(RunError, match=r"m\.onnx: expected a folder beside it that can be written"):
        open_run(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx", "m.toml"]


def test_words_in_a_keras_file_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    contents = []
    for name in ("a.keras", "b.keras"):
        (tmp_path / name).write_bytes(TENSORFLOW.read_bytes())
        write_metadata(tmp_path / name, OWN)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        assert json.loads(archive.read("metadata.json"))["keras_version"] == "3.15.1"


def test_runs_are_still_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json"):
        open_run(tmp_path)
    shipped = Path(__file__).parents[2] / "models" / "cifar10-fastnet"
    assert open_run(shipped) == RunDir(shipped)
