"""Features by ONNX Runtime and the rest by torch, against torch alone, over the layers of all kinds of networks."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from lucidate.core.atomic import sha256
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.explain.cam import Layer
from lucidate.predict.backends import WEIGHTS_KEY
from lucidate.serve.explainer import cam_inputs, feature_graph

PREPROCESS = Preprocess(9, (0.5, 0.45, 0.4), (0.25, 0.2, 0.25))
LAYER = Layer("first", (9, 9))


class Rest(nn.Module):
    """What follows the tensor: some layers, and a function between them and the last."""

    def __init__(self, layers: nn.Module, reduce: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.layers, self.reduce, self.head = layers, reduce, nn.Linear(width, 4)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.reduce(self.layers(features)))


class Whole(nn.Module):
    def __init__(self, rest: Rest) -> None:
        super().__init__()
        self.first, self.rest = nn.Conv2d(3, 6, 3, padding=1), rest

    def forward(self, images: Tensor) -> Tensor:
        return self.rest(self.first(images))


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        return features + self.inner(features)


class Gate(nn.Module):
    """Squeeze and excitation: channels times what their means say."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 6, 1)

    def forward(self, features: Tensor) -> Tensor:
        return features * self.layer(features.mean((2, 3), keepdim=True)).sigmoid() - 0.5 * features / 3


def mean(features: Tensor) -> Tensor:
    return features.mean((2, 3))


NETS: dict[str, Callable[[], Rest]] = {
    "linear": lambda: Rest(nn.Identity(), mean, 6),
    "relu": lambda: Rest(nn.ReLU(), mean, 6),
    "flatten": lambda: Rest(nn.Sequential(nn.ReLU(), nn.Flatten()), lambda x: x, 6 * 81),
    "largest": lambda: Rest(nn.GELU(), lambda x: x.amax((2, 3)), 6),
    "global-pool": lambda: Rest(nn.Sequential(nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), lambda x: x, 6),
    "hidden": lambda: Rest(nn.Sequential(nn.Flatten(), nn.Linear(486, 9), nn.ReLU()), lambda x: 0.3 * x, 9),
    "no-bias": lambda: Rest(nn.Sequential(nn.Flatten(), nn.Linear(486, 9, bias=False), nn.ReLU()), lambda x: x, 9),
    "convolution": lambda: Rest(nn.Conv2d(6, 5, 3, padding=1), mean, 5),
    "no-padding": lambda: Rest(nn.Conv2d(6, 5, 3), mean, 5),
    "much-padding": lambda: Rest(nn.Sequential(nn.Conv2d(6, 5, 3, padding=4), nn.ReLU()), mean, 5),
    "strides": lambda: Rest(nn.Sequential(nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.GELU()), mean, 5),
    "strides-that-leave-some": lambda: Rest(nn.Sequential(nn.Conv2d(6, 5, 2, stride=3), nn.GELU()), mean, 5),
    "dilated": lambda: Rest(nn.Sequential(nn.Conv2d(6, 5, 3, dilation=2, padding=2), nn.GELU()), mean, 5),
    "groups": lambda: Rest(nn.Sequential(nn.Conv2d(6, 4, 3, groups=2, padding=1), nn.GELU()), mean, 4),
    "depthwise": lambda: Rest(nn.Sequential(nn.Conv2d(6, 12, 5, groups=6, padding=2), nn.GELU()), mean, 12),
    "depthwise-strides": lambda: Rest(nn.Sequential(nn.Conv2d(6, 6, 3, stride=2, groups=6), nn.GELU()), mean, 6),
    "oblong": lambda: Rest(nn.Sequential(nn.Conv2d(6, 5, (1, 3), padding=(0, 1)), nn.ReLU()), mean, 5),
    "pool": lambda: Rest(nn.Sequential(nn.MaxPool2d(2), nn.GELU()), mean, 6),
    "pool-that-overlaps": lambda: Rest(nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.GELU()), mean, 6),
    "residual": lambda: Rest(Residual(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())), mean, 6),
    "gate": lambda: Rest(nn.Sequential(nn.SiLU(), Gate(), nn.ReLU()), mean, 6),
    "transposed": lambda: Rest(nn.GELU(), lambda x: x.permute(0, 2, 3, 1).reshape(1, -1, 6)[:, :, :].mean(1), 6),
}


class Around(Whole):
    """A path leads around the layer."""

    def forward(self, images: Tensor) -> Tensor:
        return self.rest(self.first(images) + 0.5 * images.mean(1, keepdim=True))


class FromPixels(nn.Module):
    """(B, S, S, 3) uint8 → logits, as every graph that is served."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(PREPROCESS.normalize(images))


def run_of(folder: Path, model: nn.Module, *, views: str = "one") -> RunDir:
    """As much of a run as the graph needs."""
    run = RunDir(folder)
    run.exports.mkdir(parents=True)
    run.weights.write_bytes(b"weights")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is on its way out; it is the one that servers use
        torch.onnx.export(
            FromPixels(model).eval(),
            (torch.zeros(1, 9, 9, 3, dtype=torch.uint8),),
            file,
            dynamo=False,
            opset_version=18,
            input_names=["images"],
            output_names=["logits"],
        )
    graph = onnx.load_model_from_string(file.getvalue())
    onnx.helper.set_model_props(graph, {WEIGHTS_KEY: sha256(run.weights), "views": views})
    (run.exports / "serve.onnx").write_bytes(graph.SerializeToString())
    return run


def network(name: str, kind: type[Whole] = Whole) -> Whole:
    torch.manual_seed(0)
    return kind(NETS[name]()).eval().requires_grad_(False)


def assert_as_by_torch_alone(run: RunDir, model: nn.Module) -> None:
    graph = feature_graph(run, model, PREPROCESS, LAYER)
    assert graph is not None
    pixels = np.random.default_rng(7).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    shown = PREPROCESS.normalize(torch.from_numpy(pixels)[None])
    for target in (0, 1, 2, 3, None):
        known = cam_inputs(model, shown, LAYER, target=target)
        found = cam_inputs(model, shown[:0], LAYER, target=target, features=graph(pixels))
        assert found.target == known.target
        np.testing.assert_allclose(found.activations, known.activations, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.gradients, known.gradients, rtol=1e-3, atol=1e-6)
        assert found.gradients.abs().max() > 0


@pytest.mark.parametrize("name", NETS)
def test_activations_and_gradients_are_torchs(name: str, tmp_path: Path) -> None:
    model = network(name)
    assert_as_by_torch_alone(run_of(tmp_path / "run", model), model)


def test_a_normalization_that_an_export_draws_into_the_layer_is_taken_out(tmp_path: Path) -> None:
    """Of a layer, normalized right after: the graph knows its output only after the normalization."""
    model = network("relu")
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    model.rest.layers = nn.Sequential(norm, nn.ReLU()).eval().requires_grad_(False)
    run = run_of(tmp_path / "run", model)
    kinds = [node.op_type for node in onnx.load(run.exports / "serve.onnx").graph.node]
    assert "BatchNormalization" not in kinds
    assert_as_by_torch_alone(run, model)


def test_torch_alone_remains_where_the_graph_cannot_serve(tmp_path: Path) -> None:
    model = network("relu")
    assert feature_graph(run_of(tmp_path / "views", model, views="mirror"), model, PREPROCESS, LAYER) is None
    run = run_of(tmp_path / "weights", model)
    run.weights.write_bytes(b"others")
    assert feature_graph(run, model, PREPROCESS, LAYER) is None
    (run.exports / "serve.onnx").unlink()
    assert feature_graph(run, model, PREPROCESS, LAYER) is None
    around = network("relu", Around)
    assert feature_graph(run_of(tmp_path / "around", around), around, PREPROCESS, LAYER) is None
    other = network("relu")
    nn.init.normal_(other.first.weight)
    assert feature_graph(run_of(tmp_path / "other", other), model, PREPROCESS, LAYER) is None
