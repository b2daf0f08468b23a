from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lucidate.core.errors import RecipeError, UnknownNameError
from lucidate.core.recipe import ModelRecipe
from lucidate.models.build import build, parameter_count, value_count
from lucidate.models.registry import models


def test_the_compact_cnn_is_the_one_described() -> None:
    model = build(ModelRecipe(name="compact"), 10)
    assert value_count(model) == 323_946
    assert parameter_count(model) == 323_050  # the rest are BatchNorm's running statistics
    kinds = [type(module).__name__ for module in model.modules() if not list(module.children())]
    # Pooling before the second ReLU: the two may change places.
    block = ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU", "Dropout"]
    assert kinds == [*block * 3, "Linear", "ReLU", "Dropout", "Linear"]
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.25, 0.30, 0.40, 0.5]


@pytest.mark.parametrize("name", list(models))
@pytest.mark.parametrize(("side", "classes"), [(24, 2), (32, 10), (33, 100)])
def test_every_model_gives_logits_and_gradients(name: str, side: int, classes: int) -> None:
    model = build(ModelRecipe(name=name), classes)
    logits = model(torch.randn(3, 3, side, side))
    assert logits.shape == (3, classes)
    logits.logsumexp(1).sum().backward()
    learned = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 3}, "unknown option 'width'.*did you mean 'widths'"),
        ({"widths": [1.5]}, "expected a list of int"),
        ({"widths": 3}, "expected a list of int, received 3"),
        ({"widths": []}, "expected a list of int"),
        ({"widths": [0, 1, 2]}, "expected 1 or more"),
        ({"dropout": [0.1]}, r"expected a rate a block \(3\), received 1"),
        ({"dropout": [0.1, 0.2, 1.5]}, "expected rates from 0 to below 1"),
        ({"dense": True}, "expected int, received True"),
        ({"dense": "wide"}, "expected int, received 'wide'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(ModelRecipe(name="compact", **options), 10)


def test_an_unknown_model_lists_the_choices() -> None:
    with pytest.raises(UnknownNameError, match=r"model: expected one of .*compact.*received 'compcat'"):
        build(ModelRecipe(name="compcat"), 10)
