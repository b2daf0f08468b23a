"""Gradients of depthwise convolutions are those of torch, whichever kernels compute them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fakes import Listener, colored_batches
from lucidate.core.recipe import make_recipe
from lucidate.training import depthwise, loop
from lucidate.training.depthwise import quick_gradients
from lucidate.training.loop import Training, train_model
from lucidate.training.precision import casting

CPU = torch.device("cpu")


def gradients(layer: nn.Module, images: Tensor, *, quick: bool, precision: str = "float32") -> list[Tensor]:
    """Output, and the gradients of the images and of each parameter, for a loss that weights every output."""
    images = images.detach().requires_grad_()
    layer.zero_grad()
    with casting(precision, CPU), quick_gradients(CPU, compiled=not quick):
        found = layer(images)
    weights = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).reshape(found.shape)
    (found * weights).sum().backward()
    assert images.grad is not None
    return [found.detach(), images.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the filters of the convolutions that are taken from now on."""
    taken: list[tuple[int, ...]] = []
    real = depthwise._Depthwise.apply

    def apply(images: Tensor, filters: Tensor, *rest: object) -> Tensor:
        taken.append(tuple(filters.shape))
        result: Tensor = real(images, filters, *rest)
        return result

    monkeypatch.setattr(depthwise._Depthwise, "apply", apply)
    return taken


@pytest.mark.parametrize(("height", "width"), [(3, 3), (5, 5), (3, 7), (5, 4)])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 2), (2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_torch(height: int, width: int, stride: int, padding: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, (height, width), stride, padding, groups=8, bias=bias).double()
    images = torch.randn(3, 8, 11, 12, dtype=torch.float64)
    plain, quick = (gradients(layer, images, quick=way) for way in (False, True))
    assert len(plain) == len(quick) == (4 if bias else 3)
    for ours, theirs in zip(quick, plain, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("width", "stride", "padding"), [(5, 1, 2), (5, 2, 2), (5, 3, 0), (3, 2, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_in_bfloat16_are_as_near_as_bfloat16_is(width: int, stride: int, padding: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 32, width, stride, padding, groups=32, bias=bias)
    images = torch.randn(8, 32, 12, 12).contiguous(memory_format=torch.channels_last)
    exact, near = (gradients(layer, images, quick=True, precision=precision) for precision in ("float32", "bfloat16"))
    assert near[0].dtype == torch.bfloat16
    assert {gradient.dtype for gradient in near[1:]} == {torch.float32}
    for one, other in zip(near, exact, strict=True):
        assert float((one.float() - other).norm() / other.norm()) < 0.01


@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_computes_them_so_unless_it_compiles(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "compiled", lambda model: model)
    taken = noted(monkeypatch)
    layer = nn.Conv2d(3, 3, 5, padding=2, groups=3)
    model = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = layer.weight.detach().clone()
    recipe = make_recipe({"train": {"epochs": 1, "batch_size": 16, "compile": compiled, "precision": "float32"}})
    batches = colored_batches(range(32))
    train_model(model, Training(batches=batches, validation=batches, recipe=recipe, flips=False, reporter=Listener()))
    assert len(taken) == (0 if compiled else 2)  # steps
    assert not torch.equal(layer.weight, before)


def test_only_depthwise_convolutions_with_slow_gradients_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = noted(monkeypatch)
    images = torch.randn(2, 8, 9, 9)
    layers = [
        nn.Conv2d(8, 8, 5, groups=8),
        nn.Conv2d(8, 8, 3, stride=2, groups=8),
        nn.Conv2d(8, 8, 3, groups=8),  # its gradients are quick
        nn.Conv2d(8, 8, 5),
        nn.Conv2d(8, 16, 5, groups=8),
        nn.Conv2d(8, 8, 5, groups=4),
        nn.Conv2d(8, 8, 3, stride=2, dilation=2, groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, stride=(1, 2), groups=8),
    ]
    expected = [layer(images) for layer in layers]
    assert taken == []
    with quick_gradients(CPU):
        found = [layer(images) for layer in layers]
        with torch.no_grad():
            layers[0](images)
    assert taken == [(8, 1, 5, 5), (8, 1, 3, 3)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
