from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fakes import Listener, TwoLayers, colored_batches
from lucidate.core.errors import RunError
from lucidate.core.recipe import ModelRecipe, TrainRecipe, make_recipe
from lucidate.core.records import History
from lucidate.data.batches import Batch, Batches
from lucidate.data.preprocess import Preprocess
from lucidate.models.build import build
from lucidate.training import loop
from lucidate.training.evaluation import evaluate
from lucidate.training.loop import Training, train_model
from lucidate.training.optim import classification_loss, make_optimizer

TRAIN, VALIDATION = range(60), range(60, 90)


def train(seed: int = 0, listener: Listener | None = None, **settings: Any) -> tuple[TwoLayers, History]:
    torch.manual_seed(7)  # the initial weights
    model = TwoLayers()
    defaults = {"epochs": 6, "lr": 0.05, "schedule": "constant", "batch_size": 16}
    recipe = make_recipe({"seed": seed, "train": {**defaults, **settings}})
    history = train_model(
        model,
        Training(
            batches=colored_batches(TRAIN),
            validation=colored_batches(VALIDATION),
            recipe=recipe,
            flips=False,
            reporter=listener or Listener(),
        ),
    )
    return model, history


def without_times(history: History) -> list[tuple[float, ...]]:
    return [history.accuracy, history.loss, history.val_accuracy, history.val_loss, history.learning_rate]


def test_it_learns_and_tells_of_it() -> None:
    listener = Listener()
    model, history = train(listener=listener)
    assert history.epochs == 6
    assert history.loss[-1] < history.loss[0] / 2
    assert evaluate(model, colored_batches(VALIDATION))[0] >= 0.9
    assert ("epoch 6/6", 60, 60) in listener.advanced
    assert "images/s" in listener.said[0]
    assert sum(line.startswith("epoch") for line in listener.said) == 6


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    (first, history), (again, history_again), (other, _) = train(), train(), train(seed=1)
    assert without_times(history) == without_times(history_again)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)


def test_the_callers_generator_and_settings_are_given_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    model = TwoLayers()
    torch.manual_seed(3)
    train_model(
        model,
        Training(
            batches=colored_batches(TRAIN),
            validation=colored_batches(VALIDATION),
            recipe=make_recipe({"train": {"epochs": 1}}),
            flips=False,
            reporter=Listener(),
        ),
    )
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("restore_best", [True, False])
def test_the_best_weights_are_restored_and_training_stops_early(
    monkeypatch: pytest.MonkeyPatch, restore_best: bool
) -> None:
    seen: list[torch.Tensor] = []
    accuracies = iter([0.2, 0.6, 0.5, 0.6, 0.4, 0.9])

    def scripted(model: TwoLayers, *_: object) -> tuple[float, float]:
        seen.append(model.layers[0].weight.detach().clone())
        return next(accuracies), 1.0

    monkeypatch.setattr(loop, "evaluate", scripted)
    listener = Listener()
    model, history = train(listener=listener, epochs=40, early_stop=3, restore_best=restore_best)
    assert history.val_accuracy == (0.2, 0.6, 0.5, 0.6, 0.4)  # three epochs after the first .6, the .9 never seen
    assert "stopped early" in listener.said[-1]
    assert torch.equal(model.layers[0].weight, seen[1 if restore_best else 4])
    assert not torch.equal(seen[1], seen[4])


def test_a_loss_that_is_no_number_ends_with_advice() -> None:
    with pytest.raises(
        RunError, match=r"in step \d+ of epoch 1; there is no checkpoint .* lower train\.lr \(it is 1e\+30\)"
    ):
        train(lr=1e30, optimizer="sgd")


def test_the_history_says_what_a_fresh_measurement_says() -> None:
    model, history = train(restore_best=False)
    for training in (True, False):
        accuracy, loss = evaluate(model.train(training), colored_batches(VALIDATION))
        assert (history.val_accuracy[-1], history.val_loss[-1]) == (accuracy, loss)
        assert model.training == training  # evaluate gives the mode back


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_weight_decay_spares_biases(name: str, kind: type) -> None:
    model = TwoLayers()
    optimizer = make_optimizer(model, make_recipe({"train": {"optimizer": name, "weight_decay": 0.1}}).train)
    assert isinstance(optimizer, kind)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in model.parameters() if p.ndim > 1}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_the_average_is_torchs_exponential_moving_average() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(model)  # its first update copies
    ours = loop.copy_state(model)
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 3))  # moves the statistics
        loop.move_average(ours, model, 0.9)
        theirs.update_parameters(model)
    for name, value in theirs.module.named_parameters():
        torch.testing.assert_close(ours[name], value)
    assert int(ours["1.num_batches_tracked"]) == 5


def test_blended_images_count_for_both_labels() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    loss = classification_loss(logits, Batch(torch.empty(0), labels, np.arange(5), 5, share=0.3), recipe=TrainRecipe())
    theirs = torch.tensor([1, 0, 0, 2, 1])
    soft = 0.3 * functional.one_hot(labels, 3) + 0.7 * functional.one_hot(theirs, 3)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, soft.float()))


def test_the_input_layer_of_fastnet_stops_learning_when_asked() -> None:
    torch.manual_seed(0)
    model = build(ModelRecipe(name="fastnet", widths=[4, 4, 4]), 3)
    images, labels = np.random.default_rng(0).integers(0, 255, (32, 32, 32, 3), dtype=np.uint8), np.arange(32) % 3
    batches = Batches(images, labels, np.arange(32), Preprocess(32, (0.5,) * 3, (0.25,) * 3), 8, torch.device("cpu"))
    biases = []

    def stop() -> bool:
        biases.append(model.whiten.bias.detach().clone())
        return False

    recipe = make_recipe({"train": {"epochs": 2, "batch_size": 8, "input_epochs": 1, "restore_best": False}})
    train_model(
        model, Training(batches=batches, validation=batches, recipe=recipe, flips=False, reporter=Listener(), stop=stop)
    )
    first, later = biases[:4], biases[5:]
    assert not torch.equal(first[0], first[3])
    assert all(torch.equal(bias, first[3]) for bias in later)


def test_late_epochs_train_on_the_images_of_the_highest_losses() -> None:
    listener = Listener()
    train(listener=listener, hard_epochs=2, hard_share=0.5)
    shown = {task: done for task, done, total in listener.advanced if done == total}
    assert [shown[f"epoch {epoch}/6"] for epoch in range(1, 7)] == [60, 60, 60, 60, 30, 30]

    state = loop.State(TwoLayers(), torch.optim.SGD([torch.zeros(1)]), {}, torch.zeros(1, 2))
    settings = TrainRecipe(epochs=4, hard_epochs=1, hard_share=0.4)
    assert loop.harder_images(state, settings, epoch=3) is None  # a recipe without such epochs keeps no losses
    state.losses = torch.tensor([0.3, 2.0, 0.1, 0.9, 0.2])
    chosen = loop.harder_images(state, settings, epoch=3)
    assert chosen is not None
    assert chosen.tolist() == [1, 3]


def test_the_losses_noted_are_those_of_each_image() -> None:
    fresh, logits, labels = torch.zeros(6), torch.randn(3, 4), torch.tensor([0, 3, 1])
    loop.note_losses(fresh, logits, Batch(torch.empty(0), labels, np.array([4, 0, 5]), 3))
    losses = functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(fresh, torch.stack([losses[1], *torch.zeros(3), losses[0], losses[2]]))
