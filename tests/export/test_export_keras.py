"""Runs as Keras files: stock layers that open anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_runs import digits_run, random_run

from lucidate.core.errors import ExportError
from lucidate.core.recipe import ModelRecipe
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.export.exporter import export_run
from lucidate.export.keras import export_keras
from lucidate.models.checkpoint import load_model
from lucidate.predict.infer import predict_run

# Not by importing it: that would settle its backend for the whole process.
pytestmark = [pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed"), pytest.mark.slow]

MODELS = {
    "compact": (ModelRecipe(name="compact"), 32),
    "narrow": (ModelRecipe(name="compact", widths=[8, 16], dropout=[0.0, 0.2], dense=12), 20),
    "fastnet": (ModelRecipe(name="fastnet", widths=[8, 16, 16]), 32),
    "skips": (ModelRecipe(name="fastnet", widths=[8, 16], depth=3, scale=0.3), 31),
    "single": (ModelRecipe(name="fastnet", widths=[8, 8, 8, 8], depth=4), 8),  # ends in maps of 1×1
    "shallow": (ModelRecipe(name="fastnet", widths=[8, 16], depth=1), 9),
}
STOCK = {
    "InputLayer",
    "Rescaling",
    "Normalization",
    "Conv2D",
    "BatchNormalization",
    "ReLU",
    "Activation",
    "MaxPooling2D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Dropout",
    "Dense",
    "Add",
    "Softmax",
}
OPEN = """
import sys
from pathlib import Path
import numpy as np
import keras
for folder in map(Path, sys.argv[1:]):
    images = np.load(folder / "images.npy")
    model = keras.models.load_model(folder / "model.keras")
    answers = [model.predict(given, verbose=0) for given in (images, images.astype("float32"))]
    np.save(folder / f"{keras.backend.backend()}.npy", np.stack(answers))
assert not [name for name in sys.modules if name.split(".")[0] == "lucidate"]
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    """Runs with model.keras, images and what torch says of them in their folders."""
    folder = tmp_path_factory.mktemp("keras")
    runs = {}
    for name, (model, size) in MODELS.items():
        run = random_run(folder / name, model, views="mirror", size=size, classes=7)
        export_keras(run, run.path / "model.keras")
        images = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), dtype=np.uint8)
        preprocess = Preprocess.from_dict(RunCard.load(run.card).preprocess)
        with torch.inference_mode():
            expected = load_model(run)(preprocess.normalize(torch.from_numpy(images))).softmax(1)
        np.save(run.path / "images.npy", images)
        np.save(run.path / "expected.npy", expected.numpy())
        runs[name] = run
    return runs


@pytest.mark.parametrize(
    "backend",
    [
        "torch",
        pytest.param(
            "tensorflow",
            marks=pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
        ),
    ],
)
def test_they_open_without_lucidate_and_answer_as_torch(backend: str, written: dict[str, RunDir]) -> None:
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", OPEN, *(str(run.path) for run in written.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, run in written.items():
        expected = np.load(run.path / "expected.npy")
        assert np.ptp(expected, axis=0).max() > 0.01, name
        for answers in np.load(run.path / f"{backend}.npy"):  # of uint8, of float32
            np.testing.assert_allclose(answers, expected, atol=1e-5, err_msg=name)


def test_they_are_functional_and_of_stock_layers(written: dict[str, RunDir]) -> None:
    kinds: set[str] = set()
    for name, run in written.items():
        with zipfile.ZipFile(run.path / "model.keras") as archive:
            config: dict[str, Any] = json.loads(archive.read("config.json"))
        assert config["class_name"] == "Functional"
        layers = config["config"]["layers"]
        assert {layer["module"] for layer in layers} == {"keras.layers"}, name
        kinds |= {layer["class_name"] for layer in layers}
    assert kinds == STOCK


def test_a_run_becomes_a_keras_file_and_its_one_view_is_said(tmp_path: Path) -> None:
    run = digits_run(tmp_path / "run", ModelRecipe(name="fastnet", widths=[8, 8]), views="mirror-shift")
    table = predict_run(run, "test")
    exported = export_run(run, "keras")
    assert exported.path == run.exports / "model.keras"
    assert (exported.parity.split, exported.parity.images) == ("test", len(table))
    assert exported.views == "one"
    assert "one view" in exported.note
    assert json.loads((run.exports / "parity.json").read_text())["keras"]["reference"] == "torch"


def test_what_has_no_keras_form_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vision = random_run(tmp_path / "vit", ModelRecipe(name="timm:resnet18"))
    with pytest.raises(ExportError, match="expected compact or fastnet for keras, received timm:resnet18"):
        export_run(vision, "keras")
    run = random_run(tmp_path / "run", ModelRecipe(name="compact", widths=[4], dropout=[0.0], dense=4))
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ExportError, match=r"pip install 'lucidate\[keras\]'"):
        export_run(run, "keras")
    assert not run.exports.exists()
