"""Class activation maps against the public grad-cam package, rollout by hand, and models left as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucidate.core.errors import ExplainError
from lucidate.core.recipe import ModelRecipe
from lucidate.explain.cam import Layer, attention_rollout, borrowed, class_maps, find_layer, roll_out
from lucidate.explain.heatmaps import METHODS, heatmaps, layers_for
from lucidate.models.build import build
from lucidate.models.timm import declare_missing_operators

declare_missing_operators()
MODELS = {
    "compact": {"name": "compact"},
    "fastnet": {"name": "fastnet"},
    "resnet50": {"name": "timm:resnet50"},
    "efficientnet_b0": {"name": "timm:efficientnet_b0"},
    "vit_tiny": {"name": "timm:vit_tiny_patch16_224"},
}
RESNET = pytest.param("resnet50", marks=pytest.mark.slow)


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = build(ModelRecipe(**MODELS[name]), 10, image_size=32)
    with torch.no_grad():  # statistics of its own, so that features are neither vast nor nothing
        model.train()
        for _ in range(3):
            model(torch.randn(32, 3, 32, 32))
    return model.eval()


def state_of(model: nn.Module) -> list[object]:
    """What explaining must not change."""
    return [
        *[
            (name, module.training, len(module._forward_hooks), len(module._backward_hooks))
            for name, module in model.named_modules()
        ],
        *[(name, p.requires_grad, p.grad is None) for name, p in model.named_parameters()],
        *[getattr(module, "fused_attn", None) for module in model.modules()],
    ]


@pytest.mark.parametrize("name", [RESNET if name == "resnet50" else name for name in MODELS])
def test_the_layer_is_found_by_itself(name: str) -> None:
    layer = find_layer(made(name), 32)
    assert min(layer.grid) >= 4
    assert layer.tokens == (name == "vit_tiny")
    if name == "vit_tiny":
        assert layer == Layer("net.blocks.11.norm1", (8, 8), tokens=True, skip=1)


def test_a_map_of_one_cell_is_refused_with_the_layer_to_use() -> None:
    stock = build(ModelRecipe(name="timm:resnet18", fit="upsample", size=32), 10).eval()
    assert find_layer(stock, 32).grid == (4, 4)  # the last that is large enough
    with pytest.raises(ExplainError, match=r"net\.layer4 has 1×1; use net\.layer2"):
        find_layer(stock, 32, name="net.layer4")
    with pytest.raises(ExplainError, match=r"did you mean 'net\.layer4'"):
        find_layer(stock, 32, name="layer4")
    with pytest.raises(ExplainError, match="at least 4×4"):
        find_layer(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2)), 32)


@pytest.mark.parametrize("name", ["compact", RESNET, "fastnet"])
@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam", "gradcam++", "eigencam"])
def test_agreement_with_the_public_package(name: str, method: str) -> None:
    pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    theirs = {
        "gradcam": pytorch_grad_cam.GradCAM,
        "hirescam": pytorch_grad_cam.HiResCAM,
        "layercam": pytorch_grad_cam.LayerCAM,
        "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
        "eigencam": pytorch_grad_cam.EigenCAM,
    }[method]
    model = made(name)
    images, target = torch.randn(6, 3, 32, 32), torch.tensor([0, 3, 9, 1, 1, 5])
    layer = find_layer(model, 32)
    ours = class_maps(model, images, layer, method=method, target=target)
    with theirs(model=model, target_layers=[model.get_submodule(layer.name)]) as cam:
        cam.uses_gradients = method != "eigencam"
        raw: list[np.ndarray] = []
        keep = cam.get_cam_image
        cam.get_cam_image = lambda *arguments: raw.append(keep(*arguments)) or raw[-1]
        cam(input_tensor=images.clone().requires_grad_(), targets=[ClassifierOutputTarget(int(t)) for t in target])
    expected = np.maximum(raw[0], 0)
    for mine, other in zip(ours.numpy(), expected, strict=True):
        assert (mine.max() > 0) == (other.max() > 0)
        if other.max() > 0:
            assert np.corrcoef(mine.ravel(), other.ravel())[0, 1] >= 0.999


def test_the_difference_of_two_classes_is_the_difference_of_their_gradients() -> None:
    model, images = made("compact"), torch.randn(2, 3, 32, 32)
    layer = find_layer(model, 32)
    a, b = torch.tensor([1, 2]), torch.tensor([3, 4])
    both = class_maps(model, images, layer, method="hirescam", target=a, against=b)
    swapped = class_maps(model, images, layer, method="hirescam", target=b, against=a)
    assert not torch.allclose(both, swapped)
    assert float((both * swapped).abs().max()) == 0  # what speaks for one speaks against the other


def test_each_image_of_a_batch_is_explained_by_itself() -> None:
    model, images = made("compact"), torch.randn(5, 3, 32, 32)
    layer, target = find_layer(model, 32), torch.tensor([4, 0, 4, 2, 9])
    together = class_maps(model, images, layer, target=target)
    for place in range(5):
        alone = class_maps(model, images[place : place + 1], layer, target=target[place : place + 1])
        torch.testing.assert_close(together[place : place + 1], alone, atol=1e-6, rtol=1e-4)


def test_rollout_is_the_product_by_hand() -> None:
    first = torch.tensor([[[0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]])
    second = torch.tensor([[[0.5, 0.5, 0.0], [0.2, 0.6, 0.2], [0.0, 0.1, 0.9]]])
    half = [(block[0].double().numpy() + np.eye(3)) / 2 for block in (first, second)]
    expected = (half[1] @ half[0])[0, 1:]
    np.testing.assert_allclose(roll_out([first, second], skip=1)[0].numpy(), expected, atol=1e-6)


def test_rollout_of_a_transformer_takes_its_own_attention() -> None:
    model, images = made("vit_tiny"), torch.randn(3, 3, 32, 32)
    answers: list[Tensor] = []
    with model.register_forward_hook(lambda _, __, output: answers.append(output)):
        maps = attention_rollout(model, images)
    assert maps.shape == (3, 8, 8)
    assert bool((maps > 0).all())
    assert bool((maps.sum((1, 2)) < 1).all())  # the rest is CLS's own
    with torch.no_grad():
        torch.testing.assert_close(answers[0], model(images), atol=1e-4, rtol=1e-4)
    with pytest.raises(ExplainError, match="expected a vision transformer"):
        attention_rollout(made("compact"), images)


@pytest.mark.parametrize("name", ["compact", pytest.param("vit_tiny", marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_as_it_was(name: str, training: bool) -> None:
    model = made(name).train(training)
    next(iter(model.parameters())).requires_grad_(False)
    before, weights = state_of(model), {k: v.clone() for k, v in model.state_dict().items()}
    images, target = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    for method in METHODS:
        if method == "rollout" and name == "compact":
            continue
        layers = layers_for(model, 32, method=method)
        maps = heatmaps(model, images, target, method=method, layers=layers)
        assert maps.shape[0] == 2
        assert bool(maps.isfinite().all())
        assert state_of(model) == before, method
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_also_after_an_exception(method: str) -> None:
    class Breaks(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            if self.broken:
                raise RuntimeError("broken on purpose")
            return features

    model = made("vit_tiny" if method == "rollout" else "compact").train()
    last = Breaks()
    last.broken = False
    whole = nn.Sequential(model, last)
    layers = layers_for(whole, 32, method=method)
    before, last.broken = state_of(whole), True
    with pytest.raises(RuntimeError, match="broken on purpose"):
        heatmaps(whole, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), method=method, layers=layers)
    assert state_of(whole) == before


def test_hooks_that_others_set_stay() -> None:
    model = made("compact")
    handle = model.blocks.register_forward_hook(lambda *_: None)
    with borrowed(model) as hook:
        hook(model.head, lambda *_: None)
    assert len(model.blocks._forward_hooks) == 1
    assert len(model.head._forward_hooks) == 0
    handle.remove()
