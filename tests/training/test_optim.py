"""Optimizers, learning rates, early stopping; probe, freezing and layer-wise rates of timm models with weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from fakes import TwoLayers, colored_batches
from lucidate.core.errors import RecipeError
from lucidate.core.progress import Silent
from lucidate.core.recipe import ModelRecipe, TrainRecipe, make_recipe
from lucidate.models.build import build
from lucidate.training.loop import Training, train_model
from lucidate.training.optim import (
    Muon,
    epochs_since_best,
    freeze,
    hold_frozen,
    layer_of,
    layered_groups,
    learning_rate,
    make_optimizer,
    orthogonalize,
    plateau_cuts,
    set_learning_rate,
)
from lucidate.training.probe import train_head


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


def rate(recipe: TrainRecipe, step: int, val_accuracy: tuple[float, ...] = ()) -> float:
    return learning_rate(recipe, step=step, steps_per_epoch=10, val_accuracy=val_accuracy)


def test_cosine_starts_at_the_top_after_warmup_and_ends_near_zero() -> None:
    recipe = TrainRecipe(epochs=5, lr=2.0, schedule="cosine", warmup_epochs=1)
    assert rate(recipe, 0) == pytest.approx(0.2)
    assert rate(recipe, 9) == pytest.approx(2.0)
    assert rate(recipe, 10) == pytest.approx(2.0)
    assert rate(recipe, 30) == pytest.approx(1.0)
    assert 0 < rate(recipe, 49) < 0.01


def test_cosine_is_torchs() -> None:
    recipe = TrainRecipe(epochs=3, lr=0.5, schedule="cosine")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    for step in range(30):
        assert rate(recipe, step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_linear_falls_to_zero_after_warmup() -> None:
    recipe = TrainRecipe(epochs=5, lr=2.0, schedule="linear", warmup_epochs=1)
    assert rate(recipe, 4) == pytest.approx(1.0)
    assert rate(recipe, 10) == pytest.approx(2.0)
    assert rate(recipe, 30) == pytest.approx(1.0)
    assert rate(recipe, 49) == pytest.approx(0.05)


def test_constant_is_constant_after_warmup() -> None:
    recipe = TrainRecipe(lr=0.3, schedule="constant", warmup_epochs=2)
    assert rate(recipe, 9) == pytest.approx(0.15)
    assert {rate(recipe, step) for step in range(20, 60)} == {0.3}


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(1, 5))
def test_plateau_is_torchs(values: list[float], patience: int) -> None:
    # torch cuts when more than its patience of bad epochs have passed: its patience is ours less one.
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=patience - 1, threshold=0, eps=0
    )
    for value in values:
        theirs.step(value)
    assert 0.5 ** plateau_cuts(values, patience) == optimizer.param_groups[0]["lr"]


def test_plateau_halves_the_rate_of_the_recipe() -> None:
    recipe = TrainRecipe(lr=1.0, schedule="plateau", plateau_patience=2, plateau_factor=0.1)
    assert rate(recipe, 0, (0.5, 0.4)) == 1.0
    assert rate(recipe, 0, (0.5, 0.4, 0.5)) == pytest.approx(0.1)


@pytest.mark.parametrize(("values", "expected"), [([0.1], 0), ([0.1, 0.2], 0), ([0.2, 0.1, 0.2], 2)])
def test_epochs_since_the_first_best(values: list[float], expected: int) -> None:
    assert epochs_since_best(values) == expected


def resnet(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return build(ModelRecipe(name="timm:resnet18"), classes, image_size=8)


def test_layers_are_counted_from_the_images_to_the_head() -> None:
    layers = layer_of(resnet())
    assert layers["net.conv1.weight"] == 0
    assert layers["net.fc.weight"] == max(layers.values())
    assert layers["net.layer1.0.conv1.weight"] < layers["net.layer3.1.conv2.weight"]


def test_rates_fall_towards_the_images_and_biases_do_not_decay() -> None:
    model = resnet()
    groups = layered_groups(model, weight_decay=0.05, layer_decay=0.5)
    layers = layer_of(model)
    of = {id(p): group for group in groups for p in group["params"]}
    assert len(of) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = of[id(parameter)]
        assert group["lr_scale"] == 0.5 ** (max(layers.values()) - layers[name])
        assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0)
    optimizer = make_optimizer(model, make_recipe({"train": {"optimizer": "adamw"}}).train, layer_decay=0.5)
    set_learning_rate(optimizer, 0.1)
    assert max(group["lr"] for group in optimizer.param_groups) == pytest.approx(0.1)


def test_frozen_layers_keep_weights_and_statistics(tmp_path: Path) -> None:
    theirs = resnet(1000).net  # type: ignore[union-attr]
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    model = resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = make_recipe(
        {
            "model": {"name": "timm:resnet18", "weights": str(tmp_path / "w.safetensors")},
            "train": {"epochs": 1, "freeze": 0.6, "layer_decay": 0.8, "optimizer": "adamw"},
        }
    )
    batches = colored_batches(range(48), batch_size=8)
    train_model(model, Training(batches=batches, validation=batches, recipe=recipe, flips=True, reporter=Silent()))
    layers = layer_of(model)
    frozen = [name for name, layer in layers.items() if layer < round(0.6 * (max(layers.values()) + 1))]
    assert "net.conv1.weight" in frozen
    assert "net.fc.weight" not in frozen
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    assert torch.equal(after["net.bn1.running_mean"], before["net.bn1.running_mean"])
    assert not torch.equal(after["net.fc.weight"], before["net.fc.weight"])


def test_all_frozen_leaves_the_head() -> None:
    model = resnet()
    freeze(model, 1.0)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["net.fc.weight", "net.fc.bias"]
    model.train()
    hold_frozen(model)
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_the_probe_fits_the_head_alone_and_gives_the_mode_back() -> None:
    model = resnet().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = colored_batches(range(48), batch_size=8)
    accuracy = train_head(model, batches, steps=50, precision="float32", reporter=Silent())
    assert accuracy > 0.95  # the colors are plain, even to untrained filters
    assert model.training
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["net.fc.weight", "net.fc.bias"]
    assert all(p.grad is None for p in model.parameters())


def test_other_models_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"train\.layer_decay: expected a model of timm's"):
        layer_of(TwoLayers())
    with pytest.raises(RecipeError, match=r"train\.probe_steps: expected a model of timm's"):
        train_head(
            TwoLayers(), colored_batches(range(48), batch_size=8), steps=1, precision="float32", reporter=Silent()
        )
