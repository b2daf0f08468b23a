"""Gradients that were added to ONNX graphs, against torch's own, over the operators of all kinds of networks."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from lucidate.models.onnx_session import open_session
from lucidate.serve.gradients import ASKED, GRADIENT, RULES, TARGET, Unsupported, with_gradient


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


def exported(model: nn.Module, example: Tensor) -> onnx.ModelProto:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is on its way out; it is the one that servers use
        torch.onnx.export(
            model, (example,), file, dynamo=False, opset_version=18, input_names=["images"], output_names=["logits"]
        )
    return onnx.load_model_from_string(file.getvalue())


@cache
def made_of(name: str) -> tuple[Whole, Tensor, onnx.ModelProto]:
    torch.manual_seed(0)
    model, example = Whole(NETS[name]()).eval(), torch.randn(1, 3, 9, 9)
    return model, example, exported(model, example)


def shapes_of(model: onnx.ModelProto, example: Tensor) -> dict[str, tuple[int, ...]]:
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output]
    del whole.graph.output[:]
    whole.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    values = open_session(whole.SerializeToString(), threads=1).run(names, {"images": example.numpy()})
    return dict(zip(names, (value.shape for value in values), strict=True))


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_torchs(name: str) -> None:
    model, example, graph = made_of(name)
    features = model.first(example).detach().requires_grad_()
    logits = model.rest(features)
    at = next(node for node in graph.graph.node if node.op_type == "Conv").output[0]
    made = with_gradient(graph, at=at, shapes=shapes_of(graph, example))
    onnx.checker.check_model(made, full_check=True)
    session = open_session(made.SerializeToString(), threads=1)
    for target in (0, 1, 2, 3, -1):
        known = int(logits.argmax()) if target < 0 else target
        (gradient,) = torch.autograd.grad(logits[0, known], features, retain_graph=True)
        feed = {"images": example.numpy(), TARGET: np.array([target])}
        value, found, asked = session.run((at, GRADIENT, ASKED), feed)
        assert asked == [known]
        np.testing.assert_allclose(value, features.detach(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=1e-6)
        assert np.abs(found).max() > 0


def test_no_rule_is_left_untried() -> None:
    """Every operator with a rule stands in one of the networks above, or is named here with what it shares."""
    seen = {node.op_type for name in NETS for node in made_of(name)[2].graph.node}
    same_rule = {"GlobalMaxPool", "Squeeze", "Unsqueeze", "Identity"}
    assert set(RULES) - seen <= same_rule, set(RULES) - seen


class Normalized(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.layer_norm(features, features.shape[1:])


class Divided(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return 1 / features


@pytest.mark.parametrize("layers", [Normalized(), Divided(), nn.Softmax(1)])
def test_what_has_no_rule_is_refused(layers: nn.Module) -> None:
    model, example = Whole(Rest(layers, mean, 6)).eval(), torch.randn(1, 3, 9, 9)
    graph = exported(model, example)
    at = next(node for node in graph.graph.node if node.op_type == "Conv").output[0]
    with pytest.raises(Unsupported):
        with_gradient(graph, at=at, shapes=shapes_of(graph, example))


def test_a_tensor_that_does_not_matter_is_refused() -> None:
    graph = made_of("linear")[2]
    with pytest.raises(Unsupported):
        with_gradient(graph, at="nothing", shapes={})
