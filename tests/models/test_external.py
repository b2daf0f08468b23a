"""ONNX graphs and Keras files as modules: they answer as they do elsewhere, and are looked at before they are run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file
from torch import Tensor, nn

from graphs import TENSORFLOW, features, graph, logits, outside, rewritten
from lucidate.core.errors import RecipeError, RunError, UnsafeFileError, WeightsError
from lucidate.core.recipe import ModelRecipe
from lucidate.data.preprocess import Preprocess
from lucidate.explain.heatmaps import heatmaps, layers_for
from lucidate.explain.trust import scramble
from lucidate.models.build import build, check, parameter_count, value_count
from lucidate.models.checkpoint import load_weights, save_weights
from lucidate.models.ensemble import Ensemble, Member
from lucidate.models.external import External, Options
from lucidate.models.keras import require_safe
from lucidate.models.onnx import OnnxEngine, parse, read_onnx

IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
RAW = Preprocess(8, (0, 0, 0), (1 / 255, 1 / 255, 1 / 255))
PIXELS = torch.from_numpy((np.arange(768) * 37 % 251).astype(np.uint8).reshape(4, 8, 8, 3))


def brought(path: Path, *, kind: str = "onnx", outputs: Any = "logits", layout: Any = "NCHW") -> External:
    model = External(kind, Options(outputs=outputs, layout=layout), 3)
    model.load_bytes(path.read_bytes())
    return model.eval()


@pytest.fixture(scope="module")
def tensorflow() -> External:
    return brought(TENSORFLOW, kind="keras", outputs="probabilities", layout="NHWC")


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        (("n", 3, 8, 8), "NCHW"),
        ((1, 3, 8, 8), "NCHW"),
        ((2, 3, "h", "w"), "NCHW"),
        (("n", 8, 8, 3), "NHWC"),
        ((4, 8, 8, 3), "NHWC"),
    ],
)
def test_a_graph_answers_as_numpy_does(tmp_path: Path, shape: tuple[int | str, ...], layout: str) -> None:
    model = brought(graph(tmp_path / "m.onnx", shape=shape, layout=layout), layout=layout)
    np.testing.assert_allclose(model(IMAGES).numpy(), logits(IMAGES.numpy()), rtol=1e-4, atol=1e-5)


def test_bytes_reach_a_graph_as_they_were(tmp_path: Path) -> None:
    model = brought(graph(tmp_path / "m.onnx", shape=("n", 8, 8, 3), kind="uint8", layout="NHWC"), layout="NHWC")
    every = torch.arange(256, dtype=torch.uint8).repeat(3)[: 4 * 8 * 8 * 3].reshape(4, 8, 8, 3)
    expected = logits(every.permute(0, 3, 1, 2).numpy())
    np.testing.assert_allclose(model(RAW.normalize(every)).numpy(), expected, rtol=1e-5)


def test_half_precision_is_given_and_taken(tmp_path: Path) -> None:
    model = brought(graph(tmp_path / "m.onnx", kind="float16"))
    assert model(IMAGES).dtype == torch.float32
    np.testing.assert_allclose(model(IMAGES).numpy(), logits(IMAGES.numpy()), rtol=0.01, atol=0.01)


def test_what_makes_probabilities_is_left_away_or_undone(tmp_path: Path) -> None:
    """Before softmax, certain answers still differ; of other probabilities, the logarithm is as good as it gets."""
    bright = 300 * IMAGES
    ends = brought(graph(tmp_path / "a.onnx", end="Softmax"), outputs="probabilities")
    np.testing.assert_allclose(ends(bright).numpy(), logits(bright.numpy()), rtol=1e-4)
    shares = brought(graph(tmp_path / "b.onnx", end="shares"), outputs="probabilities")
    odds = 1 / (1 + np.exp(-logits(IMAGES.numpy())))
    expected = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(shares(IMAGES).softmax(1).numpy(), expected, rtol=1e-4)
    assert torch.isfinite(shares(bright)).all()


def test_an_output_called_so_is_taken_of_several(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", both=True)
    answers = [brought(path, outputs=name)(IMAGES) for name in ("logits", "probabilities")]
    torch.testing.assert_close(*answers)
    with pytest.raises(WeightsError, match=r"with one output, .* received logits, probabilities"):
        OnnxEngine(path.read_bytes(), layout=None, outputs=None)


def test_columns_may_stand_in_another_order(tmp_path: Path) -> None:
    model = brought(graph(tmp_path / "m.onnx"))
    before = model(IMAGES)
    model.options = model.options.model_copy(update={"order": (2, 0, 1)})
    torch.testing.assert_close(model(IMAGES), before[:, [2, 0, 1]])


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    model = brought(graph(tmp_path / "m.onnx"))
    with pytest.raises(RunError, match="8×8 pixels, received 16×16"):
        model(torch.zeros(1, 3, 16, 16))
    with pytest.raises(RuntimeError):  # what trust in heatmaps catches, to use smaller mosaics
        model(torch.zeros(1, 3, 16, 16))


def test_its_state_is_the_file(tmp_path: Path) -> None:
    model = brought(graph(tmp_path / "m.onnx"))
    save_weights(model, tmp_path / "weights.safetensors")
    assert load_file(tmp_path / "weights.safetensors")["file"].numpy().tobytes() == (tmp_path / "m.onnx").read_bytes()
    recipe = ModelRecipe(name="onnx", outputs="logits", layout="NCHW")
    other = build(recipe, 3, image_size=8, initial=False)
    load_weights(other, tmp_path / "weights.safetensors")
    torch.testing.assert_close(other(IMAGES), model(IMAGES))
    assert value_count(model) == parameter_count(model) == 0  # its bytes are no weights
    assert model.engine.values == model.engine.parameters == 4 * 27 + 4 + 12
    save_weights(nn.Linear(2, 2), tmp_path / "others.safetensors")
    with pytest.raises(RunError, match="this architecture"):
        load_weights(other, tmp_path / "others.safetensors")
    other.to("cpu", torch.float16)
    assert other.file.dtype == torch.uint8


def test_an_ensemble_carries_files(tmp_path: Path) -> None:
    parts = [brought(graph(tmp_path / f"{seed}.onnx", seed=seed)) for seed in (0, 1)]
    recipe = ModelRecipe(name="onnx", outputs="logits", layout="NCHW")
    plain = Preprocess(8, (0, 0, 0), (1, 1, 1))
    members = tuple(
        Member(name=name, model=recipe, preprocess=plain, order=(0, 1, 2), views="one", mirror=False, share=0.5)
        for name in "ab"
    )
    save_weights(Ensemble(members, list(parts), "softmax"), tmp_path / "weights.safetensors")
    options = {"averaged": "softmax", "members": [member.model_dump(mode="json") for member in members]}
    whole = build(ModelRecipe(name="ensemble", **options), 3, image_size=8, initial=False)
    load_weights(whole, tmp_path / "weights.safetensors")
    expected = sum(part(IMAGES).softmax(1) for part in parts) / 2
    torch.testing.assert_close(whole(IMAGES).softmax(1), expected)


def test_it_cannot_be_trained() -> None:
    recipe = ModelRecipe(name="onnx", outputs="logits", layout="NCHW")
    with pytest.raises(RecipeError, match="that can be trained, received 'onnx'"):
        check(recipe)
    with pytest.raises(RecipeError, match=r"model\.layout: .* is not trained"):
        build(ModelRecipe(name="keras", outputs="logits", layout="diagonal"), 3)


def test_copies_are_their_own(tmp_path: Path) -> None:
    model = brought(graph(tmp_path / "m.onnx"))
    before = model(IMAGES)
    other = scramble(model, IMAGES, generator=torch.Generator().manual_seed(1))
    assert (other(IMAGES) - before).abs().max() > 0.1
    torch.testing.assert_close(model(IMAGES), before)
    torch.testing.assert_close(copy.deepcopy(model)(IMAGES), before)


def test_maps_of_a_graph_can_be_looked_at(tmp_path: Path) -> None:
    model = brought(graph(tmp_path / "m.onnx"))
    layers = layers_for(model, 8, method="eigencam")
    assert layers[""].name == "layers.relu"
    seen: list[Tensor] = []
    handle = model.get_submodule("layers.relu").register_forward_hook(lambda _, __, output: seen.append(output))
    model(IMAGES)
    handle.remove()
    np.testing.assert_allclose(seen[0].numpy(), features(IMAGES.numpy()), rtol=1e-4, atol=1e-5)
    maps = heatmaps(model, IMAGES, torch.zeros(5, dtype=torch.int64), method="eigencam", layers=layers)
    centered = features(IMAGES.numpy())[0].reshape(4, -1)
    centered -= centered.mean(1, keepdims=True)
    first = np.linalg.svd(centered.T, full_matrices=False)[2][0]
    expected = np.abs(first @ centered).reshape(8, 8)
    np.testing.assert_allclose(maps[0].abs().numpy(), np.where(maps[0] != 0, expected, 0), rtol=1e-3, atol=1e-3)


def test_what_hides_a_place_is_the_mean_color(tmp_path: Path) -> None:
    """The same network on the same pixels, normalized or raw: what matters to it is the same."""
    found = []
    for mean, std, gray in (((0.5,) * 3, (1 / 255,) * 3, (0.0,) * 3), ((0.0,) * 3, (1 / 255,) * 3, (127.5,) * 3)):
        path = graph(tmp_path / "m.onnx")
        if mean[0]:
            # Made for raw pixels, asked with normalized ones: the mean comes back by a first node of its own.
            model = onnx.load(path)
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([127.5]), "back"))
            model.graph.node[0].input[0] = "raw"
            model.graph.node.insert(0, helper.make_node("Add", ["images", "back"], ["raw"]))
            path.write_bytes(model.SerializeToString())
        module = External("onnx", Options(outputs="logits", layout="NCHW", gray=gray), 3)
        module.load_bytes(path.read_bytes())
        images = Preprocess(8, mean, std).normalize(PIXELS)
        found.append(heatmaps(module, images, torch.tensor([0, 1, 2, 0]), method="occlusion", layers={}))
    assert found[0].abs().max() > 1
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-2)


def test_a_file_of_tensorflow_answers_as_it_did_there(tensorflow: External) -> None:
    expected = json.loads(TENSORFLOW.with_suffix(".json").read_text(encoding="utf-8"))["probabilities"]
    with torch.inference_mode():
        answers = [tensorflow(RAW.normalize(PIXELS)).softmax(1).numpy() for _ in range(2)]
    for found in answers:  # twice, since augmentation would differ
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert tensorflow.engine.softmaxed


def test_gradients_of_a_keras_file_reach_its_layers(tensorflow: External) -> None:
    """Grad-CAM through stand-ins, against gradients of the network's own second half, cut by hand."""
    layers = layers_for(tensorflow, 8, method="gradcam")
    assert layers[""].name == "layers.activation"
    images = RAW.normalize(PIXELS)
    target = torch.tensor([0, 1, 2, 0])
    found = heatmaps(tensorflow, images, target, method="gradcam", layers=layers)
    net = tensorflow.engine._net  # type: ignore[attr-defined]
    value = images.permute(0, 2, 3, 1)
    for layer in net.layers[3:7]:
        value = layer(value, training=False) if layer.name == "batch_normalization" else layer(value)
    value = value.detach().requires_grad_()
    scores = value.mean((1, 2)) @ net.layers[-1].kernel.value + net.layers[-1].bias.value
    (gradient,) = torch.autograd.grad(scores[torch.arange(4), target].sum(), value)
    expected = torch.einsum("bhwc,bc->bhw", value, gradient.mean((1, 2))).relu()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)
    assert found.max() > 0


def test_a_keras_file_can_be_scrambled_and_stays(tensorflow: External) -> None:
    images = RAW.normalize(PIXELS)
    before = tensorflow(images)
    other = scramble(tensorflow, images, generator=torch.Generator().manual_seed(1))
    assert (other(images) - before).abs().max() > 0.01
    torch.testing.assert_close(tensorflow(images), before)
    with pytest.raises(RunError, match="expected a model that can answer"):
        tensorflow(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize(
    "content", [b"", b"no model at all", b"\x08\x07\x12\x04abc", b"\x80\x04\x95pickle", bytes(200)]
)
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"m\.onnx: expected an ONNX model"):
        read_onnx(tmp_path / "m.onnx")
    with pytest.raises(WeightsError, match=r"expected a \.keras file"):
        require_safe(content)


def test_a_graph_cut_short(tmp_path: Path) -> None:
    whole = graph(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((WeightsError, RunError)):
        brought(tmp_path / "m.onnx")(IMAGES)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "link", "", "C:\\secret", "far/secret"]
)
def test_weights_outside_of_the_folder_are_not_read(location: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "secret").write_bytes(bytes(1000))
    (tmp_path / "home" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "home" / "far").symlink_to(tmp_path)
    path = outside(tmp_path / "home" / "m.onnx", location)
    with pytest.raises(UnsafeFileError, match="inside of its folder"):
        read_onnx(path)
    with pytest.raises(UnsafeFileError, match="another file"):  # as it would lie in a run's weights
        brought(path)


def test_weights_beside_a_graph_are_taken_in(tmp_path: Path) -> None:
    path = outside(tmp_path / "m.onnx", "parts/filters.bin")
    with pytest.raises(WeightsError, match="no such file"):
        read_onnx(path)
    (tmp_path / "parts").mkdir()
    filters = next(one for one in parse(graph(tmp_path / "o.onnx").read_bytes()).graph.initializer)
    (tmp_path / "parts" / "filters.bin").write_bytes(filters.raw_data)
    content = read_onnx(path)
    (tmp_path / "parts" / "filters.bin").unlink()
    (tmp_path / "whole.onnx").write_bytes(content)
    np.testing.assert_allclose(
        brought(tmp_path / "whole.onnx")(IMAGES).numpy(), logits(IMAGES.numpy()), rtol=1e-4, atol=1e-5
    )


def test_weights_outside_are_found_within_branches(tmp_path: Path) -> None:
    """A graph inside of a graph may name files too."""
    tensor = onnx.numpy_helper.from_array(np.float32([1]), "hidden")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    branch = helper.make_graph([constant], "branch", [], [out])
    condition = helper.make_node("If", ["images"], ["y"], then_branch=branch, else_branch=branch)
    images = helper.make_tensor_value_info("images", TensorProto.BOOL, [])
    model = helper.make_model(helper.make_graph([condition], "net", [images], [out]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeFileError, match="secret"):
        read_onnx(tmp_path / "m.onnx")


def test_weights_outside_are_found_wherever_a_tensor_may_stand(tmp_path: Path) -> None:
    """In functions, and among the values and indices of sparse tensors, as weights and as attributes."""

    def hidden(name: str) -> TensorProto:
        tensor = onnx.numpy_helper.from_array(np.float32([1]), name)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        return tensor

    inside = onnx.numpy_helper.from_array(np.int64([0]), "inside")
    sparse = onnx.SparseTensorProto(values=hidden("values"), indices=inside, dims=[1])
    opsets = [helper.make_opsetid("", 17)]
    constants = [helper.make_node("Constant", [], ["y"], value=hidden("constant"))]
    found = []
    for change in ("function", "weight", "attribute"):
        model = onnx.load(graph(tmp_path / "m.onnx"))
        if change == "function":
            model.functions.append(helper.make_function("theirs", "f", [], ["y"], constants, opsets))
        elif change == "weight":
            model.graph.sparse_initializer.append(sparse)
        else:
            model.graph.node.append(helper.make_node("Constant", [], ["y"], sparse_value=sparse))
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(UnsafeFileError, match="nothing was read") as refused:
            read_onnx(tmp_path / "m.onnx")
        found.append(str(refused.value).rpartition("folder, ")[2].partition(" ")[0])
    assert found == ["constant", "values", "values"]


def layer(kind: str, *, module: str | None = "keras.layers", registered: str | None = None, **config: Any) -> Any:
    """A change of a configuration: one more layer."""
    part = {"module": module, "class_name": kind, "config": {"name": "extra", **config}, "registered_name": registered}
    return lambda whole: whole["config"]["layers"].append(part)


def nested(kind: str) -> Callable[[Any], None]:
    """The same, two models deep, within what a layer keeps for building."""

    def change(whole: Any) -> None:
        inner = {
            "module": "keras",
            "class_name": "Sequential",
            "config": {"layers": []},
            "registered_name": "Sequential",
        }
        layer(kind)(inner)
        whole["config"]["layers"][3]["build_config"] = {"deep": [[inner]]}

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (layer("Lambda", function={"class_name": "__lambda__", "config": {"value": "code"}}), "Lambda layer"),
        (nested("Lambda"), "Lambda layer"),
        (layer("Dense", activation={"class_name": "__lambda__", "config": {"value": "code"}}), "Lambda layer"),
        (layer("Mine", module=None, registered="package>Mine"), "package>Mine"),
        (layer("Dense", registered="package>Dense"), "package>Dense"),
        (layer("TorchModuleWrapper"), "TorchModuleWrapper"),
        (layer("TFSMLayer", filepath="/somewhere"), "TFSMLayer"),
        (layer("StringLookup", vocabulary="/etc/passwd"), "StringLookup"),
        (layer("Dense", module="os"), "os.Dense"),
        (layer("Dense", module="keras.layersx"), "keras.layersx"),
        (layer("get_file", module="keras.utils"), "get_file"),
        (layer("Dense", activation={"module": "builtins", "class_name": "function", "config": "eval"}), "function"),
        (layer("Dense", kernel_initializer={"module": "keras.initializers", "class_name": "get", "config": {}}), "get"),
        (layer("Map", module="keras.src.ops.core"), "Map"),
    ],
)
def test_keras_files_that_are_more_than_layers(change: Callable[[Any], None], words: str) -> None:
    with pytest.raises(UnsafeFileError, match=words) as refused:
        require_safe(rewritten(change))
    assert "nothing was executed" in str(refused.value)
    with pytest.raises(UnsafeFileError):  # nor from a run's weights
        External("keras", Options(outputs="logits", layout="NHWC"), 3).load_bytes(rewritten(change))


def test_keras_files_with_more_in_them() -> None:
    require_safe(rewritten())
    require_safe(rewritten(lambda config: config.update(compile_config={"loss": {"class_name": "Lambda"}})))
    with pytest.raises(UnsafeFileError, match=r"assets/code.pkl"):
        require_safe(rewritten(more={"assets/code.pkl": b"\x80\x04."}))
    with pytest.raises(UnsafeFileError, match="many times its size"):
        require_safe(rewritten(more={"model.weights.h5": bytes(2**25)}))
    with pytest.raises(WeightsError, match="damaged"):
        require_safe(rewritten(more={"config.json": b"[" * 100_000}))
    with pytest.raises(WeightsError, match="Keras can load"):
        External("keras", Options(outputs="logits", layout="NHWC"), 3).load_bytes(
            rewritten(more={"model.weights.h5": b"nothing"})
        )
