"""timm's models, as ours: any name, both fits, weights from files and from a hub on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub import serving
from safetensors.torch import save, save_file
from torch import nn

from lucidate.core.errors import RecipeError, UnknownNameError, WeightsError
from lucidate.core.recipe import ModelRecipe
from lucidate.data.preprocess import Preprocess
from lucidate.models.build import backbone, build, preprocess_for
from lucidate.models.checkpoint import load_weights, save_weights
from lucidate.models.timm import declare_missing_operators

declare_missing_operators()
import timm  # noqa: E402

NAMES = (
    "resnet50",
    "resnet18",
    "efficientnet_b0",
    "vit_tiny_patch16_224",
    "mobilenetv3_small_100",
    "convnext_atto",
)
FILE = "/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
SUM = """
import sys
from lucidate.core.errors import LucidateError
from lucidate.core.recipe import ModelRecipe
from lucidate.models.build import build
try:
    model = build(ModelRecipe(name="timm:resnet18", pretrained=True), 10)
except LucidateError as error:
    sys.exit(f"error: {error}")
print(model.net.layer4[1].conv2.weight.double().sum().item(), "|".join(model.notes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["native", "upsample"])
@pytest.mark.parametrize("name", NAMES)
def test_every_model_learns_from_small_images_and_comes_back(name: str, fit: str, tmp_path: Path) -> None:
    recipe = ModelRecipe(name=f"timm:{name}", fit=fit)
    model = build(recipe, 10, image_size=32)
    images = torch.randn(2, 3, 32, 32)
    logits = model(images)
    assert logits.shape == (2, 10)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    save_weights(model, tmp_path / "w.safetensors")
    again = build(recipe, 10, image_size=32, initial=False)
    load_weights(again, tmp_path / "w.safetensors")
    with torch.inference_mode():
        assert torch.equal(again.eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    "name", ["resnet50", "efficientnet_b0", "mobilenetv3_small_100", "convnext_atto", "regnety_004"]
)
def test_native_stems_leave_four_by_four(name: str) -> None:
    model = build(ModelRecipe(name=f"timm:{name}"), 10, image_size=32).eval()
    with torch.inference_mode():
        assert model.net.forward_features(torch.randn(1, 3, 32, 32)).shape[2:] == (4, 4)


def test_a_transformers_patches_are_small() -> None:
    model = build(ModelRecipe(name="timm:vit_tiny_patch16_224"), 10, image_size=32)
    assert model.net.patch_embed.proj.kernel_size == (4, 4)
    assert model.net.pos_embed.shape == (1, 65, 192)


def test_embeddings_are_what_the_head_sees() -> None:
    for name in NAMES:
        model = build(ModelRecipe(name=f"timm:{name}"), 7, image_size=32).eval()
        images = torch.randn(2, 3, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(model.head(model.embed(images)), model(images))


def test_preprocessing_is_the_models_own() -> None:
    fitted = Preprocess(32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    own = preprocess_for(ModelRecipe(name="timm:resnet50"), fitted)
    assert own == Preprocess(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert preprocess_for(ModelRecipe(name="compact"), fitted) == fitted


@pytest.mark.parametrize("name", NAMES)
def test_a_files_weights_arrive_and_what_could_not_be_kept_is_said(name: str, tmp_path: Path) -> None:
    theirs = timm.create_model(name, num_classes=1000)
    path = tmp_path / "theirs.safetensors"
    save_file(theirs.state_dict(), path)
    model = build(ModelRecipe(name=f"timm:{name}", weights=str(path)), 10, image_size=32)
    net, _ = backbone(model)
    assert net is not None
    own, given = net.state_dict(), theirs.state_dict()
    changed = {key.split(".")[0] for key in given if own[key].shape != given[key].shape}
    kept = [key for key in given if own[key].shape == given[key].shape and key.split(".")[0] not in changed]
    assert len(kept) >= len(given) - 8
    assert all(torch.equal(own[key], given[key]) for key in kept)
    head = net.pretrained_cfg["classifier"].split(".")[0]
    assert head in changed
    assert any("begun anew, with zeros, for 10 classes" in note for note in model.notes)
    if name in ("resnet50", "resnet18"):
        assert any(note.startswith("conv1: filters of 7×7 resampled as 3×3") for note in model.notes)


def test_a_head_of_as_many_classes_is_kept(tmp_path: Path) -> None:
    theirs = timm.create_model("resnet18", num_classes=10)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    model = build(ModelRecipe(name="timm:resnet18", weights=str(tmp_path / "w.safetensors"), fit="upsample"), 10)
    assert torch.equal(model.net.fc.weight, theirs.fc.weight)
    assert model.notes == ("pretrained weights: the file w.safetensors",)
    assert model.origin == "the file w.safetensors"


def test_a_file_that_is_named_comes_before_what_the_recipe_would_fetch(tmp_path: Path) -> None:
    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "w.safetensors")
    recipe = ModelRecipe(
        name="timm:tf_efficientnet_lite0", pretrained=True, weights=str(tmp_path / "w.safetensors"), fit="upsample"
    )
    assert build(recipe, 10).origin == "the file w.safetensors"


def test_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "small.safetensors")
    cases = [
        ("timm:nonsense", {}, UnknownNameError, "such as timm:"),
        ("timm:resnet50.nonsense", {}, UnknownNameError, r"such as timm:resnet50\."),
        ("timm:resnet50", {"fit": "tight"}, RecipeError, "'native' or 'upsample', received 'tight'"),
        ("timm:resnet50", {"size": 64}, RecipeError, "with fit = 'upsample'"),
        ("timm:resnet50", {"widths": [1]}, RecipeError, "unknown option 'widths'"),
        ("timm:resnet50", {"weights": "none.safetensors"}, WeightsError, "which does not exist"),
        ("timm:resnet50", {"weights": str(tmp_path / "text.safetensors")}, WeightsError, "cannot be read as such"),
        ("timm:resnet50", {"weights": str(tmp_path / "small.safetensors")}, WeightsError, "of this architecture"),
        ("timm:vit_tiny_patch16_224", {"weights": str(tmp_path / "small.safetensors")}, WeightsError, "architecture"),
    ]
    for name, options, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            build(ModelRecipe(name=name, **options), 10)
        assert "\n" not in str(caught.value)


def test_a_model_without_a_dense_head_says_so() -> None:
    model = build(ModelRecipe(name="timm:vgg11"), 10, initial=False)
    model.net.get_classifier = lambda: nn.Identity()
    with pytest.raises(RecipeError, match="ends in a dense layer"):
        _ = model.head


def ask_hub(address: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    for name in ("HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", SUM], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


@pytest.mark.slow
def test_weights_come_from_the_hub_are_kept_and_found_without_it(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = timm.create_model("resnet18", num_classes=1000)
    expected = theirs.layer4[1].conv2.weight.double().sum().item()
    with serving({FILE: save(theirs.state_dict())}) as address:
        first = ask_hub(address, tmp_path)
    assert first.returncode == 0, first.stderr
    assert float(first.stdout.split()[0]) == expected
    assert "fc: begun anew, with zeros, for 10 classes" in first.stdout
    second = ask_hub(address, tmp_path)  # the hub is gone
    assert "pretrained weights: the hub (timm/resnet18.a1_in1k)" in first.stdout
    assert second.stdout == first.stdout.replace("the hub (", "the hub's cache ("), second.stderr


@pytest.mark.slow
def test_a_truncated_download_is_noticed(tmp_path: Path) -> None:
    content = save(timm.create_model("resnet18", num_classes=1000).state_dict())
    with serving({FILE: content}, cut=len(content) // 2) as address:
        broken = ask_hub(address, tmp_path)
    assert broken.returncode == 1
    assert "error: model.pretrained: expected the weights timm/resnet18.a1_in1k from the hub" in broken.stderr
    with serving({FILE: content}) as address:  # nothing half-loaded stays in the cache
        assert ask_hub(address, tmp_path).returncode == 0


@pytest.mark.slow
def test_without_a_hub_the_three_ways_on_are_named(tmp_path: Path) -> None:
    gone = ask_hub("http://127.0.0.1:9", tmp_path)
    assert gone.returncode == 1
    for way in ("model.weights=FILE.safetensors", "model.pretrained=false", "HF_HOME", "lucidate[pretrained]"):
        assert way in gone.stderr
    assert "Traceback" not in gone.stderr


@pytest.mark.slow
def test_a_hub_without_the_file_says_so(tmp_path: Path) -> None:
    with serving({}) as address:
        missing = ask_hub(address, tmp_path)
    assert missing.returncode == 1
    assert "which holds none in safetensors" in missing.stderr
