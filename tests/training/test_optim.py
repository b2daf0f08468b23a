"""Optimizers; freezing, layer-wise rates and the probe of timm models with weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fakes import TwoLayers, colored_batches
from lucidate.core.errors import RecipeError
from lucidate.core.progress import Silent
from lucidate.core.recipe import ModelRecipe, make_recipe
from lucidate.models.build import build
from lucidate.training.evaluation import train_head
from lucidate.training.loop import Training, train_model
from lucidate.training.optim import (
    Muon,
    freeze,
    hold_statistics,
    layer_of,
    layered_groups,
    make_optimizer,
    orthogonalize,
    set_learning_rate,
)


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


def trained_resnet(folder: Path, **settings: object) -> tuple[dict[str, Tensor], nn.Module]:
    """Values before, and the network after two epochs from weights of a file."""
    save_file(resnet(1000).net.state_dict(), folder / "w.safetensors")  # type: ignore[union-attr]
    model = resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    named = {"name": "timm:resnet18", "weights": str(folder / "w.safetensors")}
    recipe = make_recipe(
        {"model": named, "train": {"epochs": 2, "optimizer": "adamw", "restore_best": False, **settings}}
    )
    batches = colored_batches(range(48), batch_size=8)
    train_model(model, Training(batches=batches, validation=batches, recipe=recipe, flips=True, reporter=Silent()))
    return before, model


def test_frozen_layers_keep_weights_and_statistics(tmp_path: Path) -> None:
    before, model = trained_resnet(tmp_path, freeze=0.6, layer_decay=0.8)
    layers = layer_of(model)
    frozen = [name for name, layer in layers.items() if layer < round(0.6 * (max(layers.values()) + 1))]
    assert "net.conv1.weight" in frozen
    assert "net.fc.weight" not in frozen
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    assert torch.equal(after["net.bn1.running_mean"], before["net.bn1.running_mean"])
    assert not torch.equal(after["net.fc.weight"], before["net.fc.weight"])


@pytest.mark.parametrize("thaw", [0.25, 0.5])  # within an epoch, and between two
def test_thawed_layers_learn_after_their_share_of_the_training(tmp_path: Path, thaw: float) -> None:
    before, model = trained_resnet(tmp_path, freeze=0.6, thaw=thaw)
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert "net.conv1.weight" in changed
    assert all(parameter.requires_grad for parameter in model.parameters())
    _, frozen = trained_resnet(tmp_path, freeze=0.6)
    assert not dict(frozen.named_parameters())["net.conv1.weight"].requires_grad


def test_normalizations_keep_their_statistics_where_asked(tmp_path: Path) -> None:
    before, model = trained_resnet(tmp_path, freeze_norms=True)
    after = model.state_dict()
    kept = [name for name in after if "running" in name]
    assert kept
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert not torch.equal(after["net.bn1.weight"], before["net.bn1.weight"])


def test_all_frozen_leaves_the_head() -> None:
    model = resnet()
    freeze(model, 1.0)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["net.fc.weight", "net.fc.bias"]
    model.train()
    hold_statistics(model, every=False)
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_other_models_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"train\.layer_decay: expected a model of timm's"):
        layer_of(TwoLayers())
    with pytest.raises(RecipeError, match=r"train\.probe_steps: expected a model of timm's"):
        train_head(
            TwoLayers(), colored_batches(range(48), batch_size=8), steps=1, precision="float32", reporter=Silent()
        )
