"""Heatmaps over HTTP: the same as the public grad-cam package gives, and nobody has to wait for them."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from live_server import PREPROCESS, Running, encoded, photo, running, wait_until
from numpy.typing import NDArray
from PIL import Image

from fakes import NAMES
from lucidate.core.run import RunDir
from lucidate.explain.heatmaps import METHODS
from lucidate.models.checkpoint import load_model
from lucidate.models.timm import declare_missing_operators
from lucidate.predict.backends import WEIGHTS_KEY
from lucidate.serve import explainer, schemas, v1
from lucidate.serve.settings import Settings

declare_missing_operators()
PHOTO = photo(4)
PNG = encoded(PHOTO)


@pytest.fixture(scope="module")
def run(untrained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    copy = RunDir(tmp_path_factory.mktemp("explained") / "photos")
    shutil.copytree(untrained.path, copy.path)
    return copy


@pytest.fixture(scope="module")
def server(run: RunDir) -> Iterator[Running]:
    with running(Settings(access_log=True, explain_queue=2), {"photos": run}) as server:
        yield server


def theirs(run: RunDir, target: int) -> NDArray[np.float32]:
    """Grad-CAM of the public package, in the layer's grid."""
    package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = load_model(run)
    shown = PREPROCESS.normalize(torch.from_numpy(PHOTO.copy())[None])
    with package.GradCAM(model=model, target_layers=[model.get_submodule("blocks")]) as cam:
        model(shown)
        cam.forward(shown, [ClassifierOutputTarget(target)])
        activations = cam.activations_and_grads.activations[0].detach().numpy()
        gradients = cam.activations_and_grads.gradients[0].numpy()
        raw = cam.get_cam_image(
            shown, cam.target_layers[0], [ClassifierOutputTarget(target)], activations, gradients, False
        )
    return np.maximum(raw[0], 0)


@pytest.mark.parametrize("target", [None, 3, "ship"])
def test_the_map_is_grad_cam(target: int | str | None, server: Running, run: RunDir) -> None:
    reply = server.ask(f"/v1/explain?target={'predicted' if target is None else target}", PNG).json
    known = server.truth(PHOTO)
    asked = int(known.argmax()) if target is None else NAMES.index(target) if isinstance(target, str) else target
    assert reply["target"] == {"label": NAMES[asked], "index": asked}
    assert reply["prediction"]["classes"][0]["index"] == known.argmax()
    assert reply["prediction"]["classes"][0]["probability"] == pytest.approx(known.max(), abs=1e-5)
    np.testing.assert_allclose(np.array(reply["map"]), theirs(run, asked), rtol=1e-3, atol=1e-6)
    assert (reply["model"], reply["version"], reply["method"], reply["layer"]) == ("photos", "1", "gradcam", "blocks")


def test_the_graph_and_torch_give_the_same_map(server: Running, run: RunDir) -> None:
    """By ONNX Runtime where the graph is at hand, by torch where it is not."""
    quick = server.ask("/v1/explain", PNG).json
    assert server.repository.get().explainer._features is not None
    with running(Settings(access_log=True), {"photos": run}) as other:
        kept = run.exports / "serve.onnx"
        content = kept.read_bytes()
        for instead in (None, b"nonsense", content.replace(WEIGHTS_KEY.encode(), WEIGHTS_KEY.upper().encode())):
            kept.unlink(missing_ok=True)
            if instead is not None:
                kept.write_bytes(instead)
            other.repository.get().__dict__.pop("explainer", None)
            slow = other.ask("/v1/explain", PNG).json
            assert other.repository.get().explainer._features is None
            np.testing.assert_allclose(slow["map"], quick["map"], rtol=1e-4, atol=1e-6)
            assert slow["target"] == quick["target"]
        kept.write_bytes(content)


def test_the_picture_lies_over_the_image(server: Running) -> None:
    reply = server.ask("/v1/explain", PNG)
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(reply.json["heatmap"]))))
    assert picture.shape == (32, 32, 3)
    marked = np.array(reply.json["map"])
    difference = np.abs(picture.astype(int) - PHOTO).sum(2).reshape(4, 8, 4, 8).mean((1, 3))
    assert np.corrcoef(difference.ravel(), marked.ravel())[0, 1] > 0.5
    for side in (8, 100, 256):
        sized = server.ask(f"/v1/explain?side={side}", PNG, headers={"Accept": "image/png"})
        assert sized.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(sized.body)).size == (side, side)


def test_the_documentation_names_every_method() -> None:
    assert tuple(schemas.METHODS) == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, server: Running) -> None:
    reply = server.ask(f"/v1/explain?method={method.replace('+', '%2B')}", PNG)
    if method == "rollout":
        assert reply.status == 400
        assert "vision transformer" in reply.error
    else:
        assert reply.json["method"] == method
        assert np.isfinite(np.array(reply.json["map"])).all()


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("?method=guess", PNG, 400),
        ("?method=../../run", PNG, 400),
        ("?target=unicorn", PNG, 400),
        ("?target=10", PNG, 400),
        ("?target=-1", PNG, 400),
        ("?side=4", PNG, 400),
        ("?side=100000", PNG, 400),
        ("?model=other", PNG, 404),
        ("", b"", 400),
        ("", b"<svg/>", 415),
    ],
)
def test_what_cannot_be_explained(query: str, body: bytes, status: int, server: Running) -> None:
    reply = server.ask(f"/v1/explain{query}", body)
    assert reply.status == status
    assert reply.error


def test_one_image_at_a_time(server: Running) -> None:
    text = base64.b64encode(PNG).decode()
    one = server.ask("/v1/explain", json.dumps({"image": text}).encode(), headers={"Content-Type": "application/json"})
    assert one.json["map"] == server.ask("/v1/explain", PNG).json["map"]
    two = server.ask(
        "/v1/explain", json.dumps({"images": [text, text]}).encode(), headers={"Content-Type": "application/json"}
    )
    assert two.status == 400
    assert "several" in two.error


def test_trust_is_what_was_measured(server: Running, run: RunDir) -> None:
    assert server.ask("/v1/explain", PNG).json["trust"] == {
        "verdict": "not measured: run lucidate explain photos --method gradcam"
    }
    run.explained.mkdir()
    measured = {"verdict": "with care: marking the middle of every image does as well", "empty": 0.25}
    others = {
        "gradcam-true-validation": {"verdict": "of another split"},
        "layercam-predicted-test": {"verdict": "other"},
    }
    for name, trust in {"gradcam-predicted-test": measured, **others}.items():
        content = {"method": name.partition("-")[0], "trust": trust}
        (run.explained / f"{name}.json").write_text(json.dumps(content))
    (run.explained / "gradcam-difference-test.json").write_text("{")
    assert server.ask("/v1/explain", PNG).json["trust"] == measured
    assert server.ask("/v1/explain?method=layercam", PNG).json["trust"] == {"verdict": "other"}
    shutil.rmtree(run.explained)
    assert "not measured" in server.ask("/v1/explain", PNG).json["trust"]["verdict"]


def test_nobody_waits_for_heatmaps_and_few_for_their_own(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    real = explainer.Explainer.heatmap

    def slow(*arguments: Any, **named: Any) -> Any:
        assert gate.wait(20)
        return real(*arguments, **named)

    monkeypatch.setattr(explainer.Explainer, "heatmap", slow)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(server.ask, "/v1/explain", PNG) for _ in range(2)]
        wait_until(lambda: v1._heatmaps.images == 2)
        assert server.predict(PNG).status == 200
        third = server.ask("/v1/explain", PNG)
        assert third.status == 429
        assert int(third.headers["retry-after"]) >= 1
        assert third.error
        gate.set()
        assert {each.result().status for each in waiting} == {200}
    wait_until(lambda: v1._heatmaps.images == 0)


def test_other_weights_in_the_folder_are_not_explained(run: RunDir) -> None:
    """Another training wrote into it since: a heatmap of those weights would explain nobody's answer."""
    with running(Settings(access_log=True), {"photos": run}) as server:
        before = run.weights.read_bytes()
        run.weights.write_bytes(before[:-4] + bytes(4))
        reply = server.ask("/v1/explain", PNG)
        assert reply.status == 503
        assert "folder" in reply.error
        run.weights.write_bytes(before)
        assert server.ask("/v1/explain", PNG).status == 200


def test_a_model_that_is_replaced_takes_its_explainer_with_it(server: Running) -> None:
    import gc
    import weakref

    server.ask("/v1/explain", PNG)
    known = weakref.ref(server.repository.get().explainer)
    server.repository._served.clear()
    assert server.ask("/v2/repository/models/photos/load", b"").status == 200
    gc.collect()
    wait_until(lambda: known() is None)
