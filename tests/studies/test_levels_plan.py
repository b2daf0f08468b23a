"""Which networks take part in the levels, and how a budget is divided among them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes import Listener
from lucidate.core.errors import WeightsError
from lucidate.core.recipe import ModelRecipe
from lucidate.core.records import Results
from lucidate.core.run import RunDir
from lucidate.studies import levels, levels_plan
from lucidate.studies.levels import in_time
from lucidate.studies.levels_plan import Plan, make_plan, trained_minutes
from lucidate.training.precision import changed

pytestmark = pytest.mark.slow

OWN = ("level1_resnet50", "level2_resnet50", "level3_custom", "level4_efficientnet_b0", "level4_vit_tiny")


def plan(tmp_path: Path, *overrides: str, listener: Listener | None = None) -> Plan:
    return make_plan("digits", tmp_path / "out", overrides=overrides, reporter=listener or Listener())


def at_hand(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Only the weights of some networks can be had."""

    def require(recipe: ModelRecipe) -> None:
        if not any(name in recipe.name for name in names):
            raise WeightsError(f"model.pretrained: expected the weights of {recipe.name}")

    monkeypatch.setattr(levels_plan, "require_weights", require)


def test_the_challenges_own_networks_where_their_weights_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_hand(monkeypatch, "resnet50", "efficientnet_b0", "vit_tiny", "lite")
    found = plan(tmp_path)
    assert tuple(name for name in found.recipes if found.folder_of(name) == name) == OWN
    assert found.members == ("level4_resnet50", *OWN[3:])
    assert found.folder_of("level4_resnet50") == "level2_resnet50"
    assert all(recipe.model.options.get("pretrained", True) for recipe in found.recipes.values())


@pytest.mark.parametrize("hub", [(), ("resnet50", "vit_tiny")])
def test_else_networks_whose_weights_are_installed_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: tuple[str, ...]
) -> None:
    at_hand(monkeypatch, "lite", *hub)
    listener = Listener()
    found = plan(tmp_path, listener=listener)
    assert tuple(found.recipes) == ("level1_lite2", "level2_lite2", "level3_custom", "level4_lite1")
    assert found.members == ("level2_lite2", "level4_lite1", "level3_custom")
    assert sum("take the places of ResNet50" in line for line in listener.said) == 1
    with pytest.raises(WeightsError):
        plan(tmp_path, "levels.pretrained=true")


def test_else_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand(monkeypatch)
    found, asked = plan(tmp_path), plan(tmp_path, "levels.pretrained=false")
    assert found.recipes == asked.recipes
    assert found.notes[0].startswith("No pretrained weights were at hand: every network began from scratch")
    assert asked.notes[0].startswith("By levels.pretrained=false every network began from scratch")
    assert found.recipes["level1_resnet50"].model.options["pretrained"] is False


@pytest.mark.parametrize("names", [("lite",), ("resnet50", "efficientnet_b0", "vit_tiny")])
def test_a_budget_is_divided_among_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    at_hand(monkeypatch, *names)
    found = plan(tmp_path, "levels.minutes=30")
    runs = [recipe for name, recipe in found.recipes.items() if found.folder_of(name) == name]
    minutes = [recipe.train.minutes or 0 for recipe in runs]
    assert sum(minutes) == pytest.approx(trained_minutes(30, 1_797), abs=0.01)
    assert minutes[0] < minutes[1]  # level 2 is to be better than level 1
    assert len(runs) == len(found.recipes) - (names[0] != "lite")
    # Few images are seen so often that the recipes' epochs would end before the budget does.
    assert all(recipe.train.epochs >= 80 for recipe in runs)
    assert {r.train.epochs for r in plan(tmp_path, "levels.minutes=30", "train.epochs=3").recipes.values()} == {3}


def test_a_budget_leaves_time_for_predictions() -> None:
    assert trained_minutes(30, 60_000) == pytest.approx(24)
    assert trained_minutes(180, 60_000) == pytest.approx(173.5)
    assert trained_minutes(5, 60_000) == pytest.approx(4)  # however little there is
    assert trained_minutes(5, 180) == pytest.approx(4.482)


@pytest.mark.parametrize("names", [("lite",), ("resnet50", "efficientnet_b0", "vit_tiny")])
def test_runs_after_a_late_one_have_less_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    at_hand(monkeypatch, *names)
    found = plan(tmp_path, "levels.minutes=30")
    first, second, *_, last = found.recipes
    own = {name: recipe.train.minutes or 0 for name, recipe in found.recipes.items()}
    whole = sum(own[name] for name in own if found.folder_of(name) == name)
    assert found.minutes_left(first, spent={}) == own[first]
    due = 30 * own[first] / whole
    assert found.minutes_left(second, spent={first: due / 2}) == own[second]  # no one has more than was planned
    late = {first: due + (whole - own[first]) / 2}  # half of what the others were to train
    assert found.minutes_left(second, spent=late) == pytest.approx(own[second] / 2, abs=0.01)
    lost = {name: 100.0 if name == first else 0.0 for name in own if name != last}
    assert found.minutes_left(last, spent=lost) == pytest.approx(own[last] / 10, abs=0.01)


def test_a_run_that_has_begun_keeps_its_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand(monkeypatch, "lite")
    found, listener = plan(tmp_path, "levels.minutes=30"), Listener()
    first, second, third, _ = found.recipes
    cards = {
        first: SimpleNamespace(results=Results(seconds=1200.0, train_seconds=400.0)),
        second: SimpleNamespace(recipe=changed(found.recipes[second], {"train": {"minutes": 1.5}}), results=Results()),
    }
    monkeypatch.setattr(levels, "RunCard", SimpleNamespace(load=lambda path: cards[path.parent.name]))
    before = {first: RunDir(tmp_path / first)}

    def minutes(name: str) -> float | None:
        run = RunDir(tmp_path / name)
        return in_time(name, run, found, before=before, reporter=listener).train.minutes

    late = minutes(second)
    assert late == found.minutes_left(second, spent={first: 20.0})
    assert "since those before it took longer" in listener.said[-1]
    (tmp_path / second).mkdir()
    (tmp_path / second / "run.json").touch()
    assert minutes(second) == 1.5
    before |= {second: RunDir(tmp_path / second)}  # nothing is known of its time
    assert minutes(third) == found.minutes_left(third, spent={first: 20.0, second: 0.0})
    free = plan(tmp_path, "train.minutes=2")  # of each run, not of all together
    assert in_time(third, RunDir(tmp_path / third), free, before=before, reporter=listener).train.minutes == 2


def test_large_images_need_no_smaller_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand(monkeypatch, "resnet50", "efficientnet_b0", "vit_tiny")
    found = plan(tmp_path, "data.image_size=64")
    options = found.recipes["level1_resnet50"].model.options
    assert (options["fit"], options["size"]) == ("upsample", 64)
    assert "fit" not in found.recipes["level3_custom"].model.options
