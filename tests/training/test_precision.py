"""Which arithmetic is used, and that the model is as it was after it has been tried."""

from __future__ import annotations

import pytest
import torch

from fakes import Listener, TwoLayers, colored_batches
from lucidate.core.recipe import make_recipe
from lucidate.training import precision
from lucidate.training.loop import Training, train_model
from lucidate.training.precision import casting, choose_precision, working_type

CPU = torch.device("cpu")


def choose(setting: str, listener: Listener | None = None) -> tuple[str, TwoLayers]:
    torch.manual_seed(0)
    model = TwoLayers()
    values = {"data": {"source": "digits"}, "model": {"name": "compact"}}
    recipe = make_recipe({**values, "train": {"precision": setting, "batch_size": 8}})
    chosen = choose_precision(recipe, model, image_size=8, device=CPU, reporter=listener or Listener())
    return chosen, model


@pytest.mark.parametrize("setting", ["float32", "bfloat16", "float64"])
def test_a_recipe_can_fix_it(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "step_seconds", None)  # nothing is probed
    assert choose(setting)[0] == setting


@pytest.mark.parametrize(("gain", "chosen"), [(0.05, "float32"), (1.05, "float32"), (1.5, "bfloat16")])
def test_the_probe_takes_bfloat16_only_for_a_clear_gain(
    gain: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(model: object, images: object, kind: str, **_: object) -> float:  # noqa: ARG001
        return 1.0 if kind == "float32" else 1 / gain

    monkeypatch.setattr(precision, "step_seconds", seconds)
    listener = Listener()
    assert choose("auto", listener)[0] == chosen
    assert f"{gain:.2f} times as fast" in listener.said[0]


def test_the_probe_leaves_the_model_as_it_was() -> None:
    chosen, model = choose("auto")
    torch.manual_seed(0)
    fresh = TwoLayers()
    assert chosen in ("float32", "bfloat16")
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float64"])
def test_every_precision_learns_and_keeps_its_type(kind: str) -> None:
    torch.manual_seed(7)
    model = TwoLayers()
    history = train_model(
        model,
        Training(
            batches=colored_batches(range(60)),
            validation=colored_batches(range(60, 90)),
            recipe=make_recipe({"train": {"epochs": 15, "lr": 0.02, "batch_size": 16}}),
            flips=True,
            reporter=Listener(),
            precision=kind,
        ),
    )
    assert history.val_accuracy[-1] > 0.9
    assert {value.dtype for value in model.state_dict().values()} == {working_type(kind)}
    with casting(kind, CPU):
        expected = torch.bfloat16 if kind == "bfloat16" else working_type(kind)
        assert model(torch.zeros(2, 3, 8, 8, dtype=working_type(kind))).dtype == expected
