"""Linear probe, freezing by depth, layer-wise rates: what timm models that begin with weights may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fakes import TwoLayers, colored_batches
from lucidate.core.errors import RecipeError
from lucidate.core.progress import Silent
from lucidate.core.recipe import ModelRecipe, make_recipe
from lucidate.models.build import build
from lucidate.training.loop import Training, train_model
from lucidate.training.optim import freeze, hold_frozen, layer_of, layered_groups, make_optimizer, set_learning_rate
from lucidate.training.probe import train_head


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
