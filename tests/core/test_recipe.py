from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lucidate.core.errors import RecipeError
from lucidate.core.recipe import (
    Recipe,
    apply_override,
    load_recipe,
    make_recipe,
    overridden,
    shipped_recipes,
    with_overrides,
)


@pytest.mark.parametrize(
    ("override", "key", "message"),
    [
        ("train.epochs=-1", "train.epochs", "expected greater than or equal to 1, received -1"),
        ("train.lr=abc", "train.lr", "expected a valid number, received 'abc'"),
        ("train.lr=nan", "train.lr", "expected a finite number, received nan"),
        ("train.epochs=2.5", "train.epochs", "expected a valid integer, received 2.5"),
        ("train.epochs=true", "train.epochs", "received True"),
        ("augment.flip=maybe", "augment.flip", "true or false, received 'maybe'"),
        ("data.split=random", "data.split", "expected 'official', '80-10-10' or '20-10-70', received 'random'"),
        ("train=3", "train", "expected a section such as [train], received 3"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected_and_what_came(override: str, key: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", overrides=[override])
    text = str(caught.value)
    assert f": {key}: " in text
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("override", ["data=3", "data=photos"])
def test_a_value_in_a_sections_place_is_refused_beside_a_source(override: str) -> None:
    with pytest.raises(RecipeError, match=r"data: expected a section such as \[data\], received"):
        load_recipe("digits", source="digits", overrides=[override])


def test_a_name_in_the_models_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('model = "compact"')
    with pytest.raises(RecipeError, match=r"model: expected a section such as \[model\], received 'compact'"):
        load_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("override", "guess"), [("train.epoch=3", "epochs"), ("trian.epochs=3", "train"), ("augment.flips=true", "flip")]
)
def test_an_unknown_key_lists_the_choices_and_guesses(override: str, guess: str) -> None:
    with pytest.raises(RecipeError, match=f"unknown key .*did you mean '{guess}'"):
        load_recipe("digits", overrides=[override])


def test_overrides_are_toml_values_or_else_strings() -> None:
    overrides = ["train.lr=0.5", "data.source=/some/folder", 'model.name="compact"', "model.widths=[8, 16, 32]"]
    recipe = load_recipe("compact", overrides=[*overrides, "train.label_smoothing=.25"])
    assert recipe.train.lr == 0.5
    assert recipe.train.label_smoothing == 0.25
    assert recipe.data.source == "/some/folder"
    assert recipe.model.options == {"widths": [8, 16, 32]}


@pytest.mark.parametrize("text", ["train.epochs", "=3", "train.=3", ".epochs=3"])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="expected KEY=VALUE"):
        apply_override({}, text)


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="expected 'seed' to be a section"):
        apply_override({"seed": 3}, "seed.a=1")


def test_a_recipe_is_frozen_and_survives_json() -> None:
    recipe = make_recipe({"seed": 5, "model": {"name": "compact", "dense": 64}})
    with pytest.raises(ValidationError):
        recipe.seed = 6  # type: ignore[misc]
    again = Recipe.model_validate_json(recipe.model_dump_json(), strict=False)
    assert again == recipe
    assert again.model.options == {"dense": 64}


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_load_and_state_their_result(name: str) -> None:
    assert isinstance(load_recipe(name), Recipe)
    header = shipped_recipes()[name].read_text(encoding="utf-8").split("seed =")[0]
    for word in ("Result", "Hardware", "Command"):
        assert word in header, f"recipes/{name}.toml should say its {word.lower()} in its header"


def test_a_recipe_that_is_no_toml_or_not_there(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = = 3")
    with pytest.raises(RecipeError, match="does not parse"):
        load_recipe(broken)
    with pytest.raises(RecipeError, match="did you mean 'compact'"):
        load_recipe("compct")
    with pytest.raises(RecipeError, match="received the folder"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("name", "options"), [("fastnet", {}), ("timm:resnet18", {}), ("compact", {"widths": [4, 8, 16]})]
)
def test_another_model_begins_with_its_own_options(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    path = tmp_path / "r.toml"
    path.write_text('[model]\nname = "compact"\nwidths = [4, 8, 16]\n')
    assert load_recipe(path, overrides=[f"model.name={name}"]).model.options == options
    with_own = load_recipe(path, overrides=["model.depth=3", f'model.name = "{name}"'])
    assert with_own.model.options == {**options, "depth": 3}


def test_a_recipe_takes_overrides_as_its_file_would() -> None:
    overrides = ["train.epochs=3", "augment={mixup=0.4}", "model.depth=2"]
    changed = with_overrides(load_recipe("fast"), source="photos", overrides=overrides)
    assert changed == load_recipe("fast", source="photos", overrides=overrides)
    assert overridden(overrides) == {"train.epochs", "augment.mixup", "model.depth"}
    with pytest.raises(RecipeError, match=r"unknown key 'train\.epoch'"):
        with_overrides(Recipe(), overrides=["train.epoch=3"])
