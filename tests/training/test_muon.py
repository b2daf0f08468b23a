from __future__ import annotations

import pytest
import torch
from torch import nn

from lucidate.core.recipe import make_recipe
from lucidate.models.build import build
from lucidate.training.optim import Muon, make_optimizer, orthogonalize, set_learning_rate


@pytest.mark.parametrize("shape", [(16, 16), (24, 100), (100, 24)])
def test_orthogonalize_keeps_the_singular_vectors_and_levels_the_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    result = left.T @ orthogonalize(matrix) @ right.T
    torch.testing.assert_close(result, torch.diag(result.diag()), atol=1e-4, rtol=0)  # the same vectors
    strong = result.diag()[values > 0.1 * values.max()]
    assert strong.min() > 0.3
    assert strong.max() < 1.3


def test_what_is_no_filter_is_updated_as_torchs_nesterov_sgd() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    muon = Muon([{"params": list(ours.parameters())}], lr=0.1, momentum=0.85)
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.85, nesterov=True)
    for _ in range(5):
        inputs = torch.randn(8, 5)
        for model, optimizer in ((ours, muon), (theirs, sgd)):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_filters_heads_and_biases_have_rates_of_their_own() -> None:
    recipe = make_recipe(
        {"model": {"name": "fastnet"}, "train": {"optimizer": "muon", "lr": 0.2, "head_lr": 0.6, "bias_lr": 0.05}}
    )
    model = build(recipe.model, 10)
    optimizer = make_optimizer(model, recipe.train)
    set_learning_rate(optimizer, 0.1)  # half way down
    rates = {p.ndim: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == pytest.approx({4: 0.1, 2: 0.3, 1: 0.025})
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    assert held == sum(p.requires_grad for p in model.parameters())


def test_filters_keep_their_scale() -> None:
    conv = nn.Conv2d(4, 8, 3, bias=False)
    muon = Muon([{"params": [conv.weight], "matrix": True}], lr=1e-9, momentum=0.6)
    conv(torch.randn(2, 4, 6, 6)).sum().backward()
    muon.step()
    assert conv.weight.norm().item() == pytest.approx(8**0.5, rel=1e-5)
