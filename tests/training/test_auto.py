"""The recipe that suits the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import Listener
from lucidate.core.errors import RecipeError
from lucidate.training import auto
from lucidate.training.auto import choose, packed_side, resolve


def folder_of(path: Path, sizes: dict[str, list[tuple[int, int]]]) -> Path:
    generator = np.random.default_rng(0)
    for name, each in sizes.items():
        (path / name).mkdir(parents=True)
        for number, (width, height) in enumerate(each):
            pixels = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{number}.png")
    return path


def settings(choice: auto.Choice) -> dict[str, str]:
    return dict(item.split("=") for item in choice.settings)


def test_few_images_are_transferred_to() -> None:
    choice = choose(np.full(10, 206), side=96, pretrained=True)
    assert choice.recipe == "transfer"
    assert settings(choice) == {
        "data.image_size": "96",
        "train.minutes": "2.9",
        "model.size": "96",
        "augment.translate": "0",
        "augment.crop": "0.1",
    }
    assert "2,060 images of 96 pixels" in choice.reasons[0]
    assert settings(choose(np.full(10, 20), side=128, pretrained=True))["train.minutes"] == "1"


def test_many_small_images_are_learned_from_scratch() -> None:
    choice = choose(np.full(10, 5000), side=32, pretrained=True)
    assert choice.recipe == "fast"
    assert settings(choice)["train.epochs"] == "13"
    assert choose(np.full(10, 5000), side=96, pretrained=True).recipe == "transfer"


def test_without_weights_there_is_only_scratch_with_more_epochs_for_fewer_images() -> None:
    choice = choose(np.full(4, 100), side=64, pretrained=False)
    assert choice.recipe == "fast"
    assert int(settings(choice)["train.epochs"]) > 13
    assert int(settings(choice)["train.batch_size"]) < 64
    assert settings(choose(np.full(4, 100), side=128, pretrained=False))["data.image_size"] == "64"
    assert "no pretrained weights are at hand" in choice.reasons[0]


def test_rare_classes_weigh_more_where_the_classes_are_uneven() -> None:
    assert settings(choose(np.array([100, 30]), side=64, pretrained=True))["train.balance"] == "weights"
    assert "train.balance" not in settings(choose(np.array([100, 40, 0]), side=64, pretrained=True))


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
    assert "the largest has 24 images and the smallest 6" in said[1]
    with pytest.raises(RecipeError, match=r"unknown key 'train\.epoch'"):
        resolve(str(photos), overrides=["train.epoch=7"], reporter=listener)
