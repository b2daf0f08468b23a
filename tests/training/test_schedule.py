"""Learning rates and early stopping; trainings of so many minutes, whose images grow, whose classes are evened out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from fakes import Listener, TwoLayers, colored_batches
from lucidate.core.errors import RecipeError
from lucidate.core.recipe import AugmentRecipe, ModelRecipe, TrainRecipe, make_recipe
from lucidate.core.records import History
from lucidate.data.batches import Batch, Batches, prepare
from lucidate.models.build import check
from lucidate.training import loop, precision
from lucidate.training.loop import Training, train_model
from lucidate.training.optim import classification_loss
from lucidate.training.precision import chosen_before, with_budget
from lucidate.training.schedule import epochs_since_best, growing, learning_rate, plateau_cuts, side_at

TRAIN, VALIDATION = range(60), range(60, 90)


class Sized(TwoLayers):
    """A net that resizes its images, and notes at which side it saw them in training."""

    def __init__(self) -> None:
        super().__init__()
        self.size: int = 64
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(self.size)
        return super().forward(functional.interpolate(images, (self.size, self.size)))


def train(
    model: TwoLayers, monkeypatch: pytest.MonkeyPatch, *, seconds_a_step: float, **settings: Any
) -> tuple[History, Listener]:
    """Train by a clock that moves by so much a step."""
    now, listener = [0.0], Listener()
    step = loop.take_step

    def timed(*arguments: Any, **options: Any) -> Tensor:
        now[0] += seconds_a_step
        return step(*arguments, **options)

    monkeypatch.setattr(loop, "take_step", timed)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    defaults = {"lr": 0.05, "schedule": "linear", "batch_size": 15, "restore_best": False}
    history = train_model(
        model,
        Training(
            batches=colored_batches(TRAIN, batch_size=15),
            validation=colored_batches(VALIDATION),
            recipe=make_recipe({"train": {**defaults, **settings}}),
            flips=False,
            reporter=listener,
        ),
    )
    return history, listener


def test_the_schedule_ends_with_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    history, _ = train(TwoLayers(), monkeypatch, seconds_a_step=5, minutes=1, epochs=100)
    # Twelve steps of five seconds are three epochs of four; the rate falls to zero over them, not over a hundred.
    assert sum(history.epoch_seconds) == pytest.approx(60, abs=5)
    assert history.epochs in (3, 4)
    assert history.learning_rate[-1] <= 0.05 / 12 + 1e-9
    assert list(history.learning_rate) == sorted(history.learning_rate, reverse=True)


def test_epochs_end_a_training_that_has_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    history, _ = train(TwoLayers(), monkeypatch, seconds_a_step=1, minutes=60, epochs=2)
    assert history.epochs == 2
    plain, _ = train(TwoLayers(), monkeypatch, seconds_a_step=1, epochs=2)
    assert history.learning_rate == plain.learning_rate


def test_what_the_budget_allows_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PLAN_STEPS", 1)
    _, listener = train(TwoLayers(), monkeypatch, seconds_a_step=5, minutes=1, epochs=100)
    (line,) = [line for line in listener.said if "schedule" in line]
    assert line.startswith("1 min: 3 images/s are about 3.0 epochs of 60 images; the linear schedule ends with them")


@pytest.mark.parametrize("minutes", [0, -1, "many"])
def test_a_budget_of_nothing_is_refused(minutes: Any) -> None:
    with pytest.raises(RecipeError, match=r"train\.minutes: expected .* received"):
        make_recipe({"train": {"minutes": minutes}})


def test_images_grow_and_the_model_keeps_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Sized()
    train(model, monkeypatch, seconds_a_step=1, epochs=5, start_size=16)
    assert model.size == 64
    assert model.seen[0] == 16
    assert model.seen[-1] == 64
    assert model.seen == sorted(model.seen)
    assert set(model.seen) == {16, 32, 48, 64}


def test_a_size_to_begin_with_needs_a_model_that_resizes_and_takes_both_sizes() -> None:
    with pytest.raises(RecipeError, match=r"train\.start_size: expected a model that resizes its images"):
        check(ModelRecipe(name="compact"), start_size=16)
    patches = {"name": "timm:vit_tiny_patch16_224", "fit": "upsample", "size": 96}
    with pytest.raises(RecipeError, match=r"train\.start_size: expected a model that takes images of 64 pixels"):
        check(ModelRecipe.model_validate(patches), start_size=64)
    check(ModelRecipe.model_validate(patches), start_size=96)
    check(ModelRecipe.model_validate(patches | {"name": "timm:tf_efficientnet_lite0"}), start_size=64)


def test_sides_are_multiples_of_sixteen_up_to_the_last() -> None:
    sides = [side_at(share, first=64, last=100) for share in np.linspace(0, 1, 50)]
    assert sides[0] == 64
    assert sides[-1] == 100
    assert all(side % 16 == 0 for side in sides if side != 100)


def test_a_size_is_given_back_after_an_error() -> None:
    model = Sized()
    with pytest.raises(KeyError), growing(model) as grow:
        grow(16, 0.0)
        assert model.size == 16
        raise KeyError
    assert model.size == 64


def test_averaged_weights_forget_the_initial_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = TwoLayers()
    shares = []  # of the initial weights, in the average
    lerp = torch._foreach_lerp_

    def watch(averages: Any, values: Any, weight: float) -> None:
        shares.append(1 - weight)
        lerp(averages, values, weight)

    monkeypatch.setattr(torch, "_foreach_lerp_", watch)
    train(model, monkeypatch, seconds_a_step=1, epochs=15, average=0.98)
    assert len(shares) == 60
    assert np.prod(shares) < 1e-6  # a constant .98 would keep 30 %
    assert shares == sorted(shares)
    assert max(shares) <= 0.98


def uneven() -> Batches:
    """Sixty images: 40 of the first class, 15 of the second, 5 of the third."""
    batches = colored_batches(TRAIN)
    labels = np.repeat([0, 1, 2], [40, 15, 5])
    return Batches(batches.images[:60], labels, np.arange(60), batches.preprocess, 20, torch.device("cpu"))


def test_balanced_sampling_draws_every_class_alike() -> None:
    batches = uneven()
    drawn = [
        label
        for epoch in range(40)
        for _, batch in batches.shuffled(0, epoch, recipe=AugmentRecipe(), flips=False, balanced=True)
        for label in batch.labels.tolist()
    ]
    assert len(drawn) == 40 * 60
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 1 / 3, atol=0.03)
    again = [
        batch.positions.tolist()
        for _, batch in batches.shuffled(0, 3, recipe=AugmentRecipe(), flips=False, balanced=True)
    ]
    late = [
        batch.positions.tolist()
        for _, batch in batches.shuffled(0, 3, recipe=AugmentRecipe(), flips=False, balanced=True, first=1)
    ]
    assert late == again[1:]


def test_class_weights_make_classes_count_alike() -> None:
    batches = uneven()
    weights = batches.class_weights(3)
    np.testing.assert_allclose(weights * [40, 15, 5], 20)
    assert batches.class_weights(4)[3] > 0
    labels = torch.from_numpy(batches.labels)
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    batch = Batch(torch.zeros(60, 3, 8, 8), labels, np.arange(60), 60)
    recipe = make_recipe({"train": {"label_smoothing": 0.0}}).train
    ours = classification_loss(logits, batch, recipe=recipe, weights=torch.from_numpy(weights).float())
    each = functional.cross_entropy(logits, labels, reduction="none")
    by_class = torch.stack([each[labels == label].mean() for label in range(3)])
    assert float(ours) == pytest.approx(float(by_class.mean()), rel=1e-5)


def test_smoothing_pushes_no_image_towards_a_rare_class_or_one_without_images() -> None:
    batches = uneven()
    labels = torch.from_numpy(batches.labels)
    weights = torch.from_numpy(batches.class_weights(4))  # no image is of the last
    logits = torch.zeros(60, 4, dtype=torch.float64, requires_grad=True)
    recipe = make_recipe({"train": {"label_smoothing": 0.3}}).train
    batch = Batch(torch.empty(0), labels, np.arange(60), 60)
    classification_loss(logits, batch, recipe=recipe, weights=weights).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad.argmin(1) == labels).all()  # down the gradient, each image's own class gains most
    assert float(logits.grad[-1, 2] / logits.grad[0, 0]) == pytest.approx(8)  # five images weigh as much as forty


def rate(recipe: TrainRecipe, step: int, val_accuracy: tuple[float, ...] = ()) -> float:
    return learning_rate(recipe, step=step, steps_per_epoch=10, val_accuracy=val_accuracy)


def test_cosine_starts_at_the_top_after_warmup_and_ends_near_zero() -> None:
    recipe = TrainRecipe(epochs=5, lr=2.0, schedule="cosine", warmup_epochs=1)
    assert rate(recipe, 0) == pytest.approx(0.2)
    assert rate(recipe, 9) == pytest.approx(2.0)
    assert rate(recipe, 10) == pytest.approx(2.0)
    assert rate(recipe, 30) == pytest.approx(1.0)
    assert 0 < rate(recipe, 49) < 0.01


def test_cosine_is_torchs() -> None:
    recipe = TrainRecipe(epochs=3, lr=0.5, schedule="cosine")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    for step in range(30):
        assert rate(recipe, step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_linear_falls_to_zero_after_warmup() -> None:
    recipe = TrainRecipe(epochs=5, lr=2.0, schedule="linear", warmup_epochs=1)
    assert rate(recipe, 4) == pytest.approx(1.0)
    assert rate(recipe, 10) == pytest.approx(2.0)
    assert rate(recipe, 30) == pytest.approx(1.0)
    assert rate(recipe, 49) == pytest.approx(0.05)


def test_constant_is_constant_after_warmup() -> None:
    recipe = TrainRecipe(lr=0.3, schedule="constant", warmup_epochs=2)
    assert rate(recipe, 9) == pytest.approx(0.15)
    assert {rate(recipe, step) for step in range(20, 60)} == {0.3}


@settings(deadline=None)  # the first call loads torch's schedulers
@given(st.lists(st.floats(0, 1), max_size=40), st.integers(1, 5))
def test_plateau_is_torchs(values: list[float], patience: int) -> None:
    # torch cuts when more than its patience of bad epochs have passed: its patience is ours less one.
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=patience - 1, threshold=0, eps=0
    )
    for value in values:
        theirs.step(value)
    assert 0.5 ** plateau_cuts(values, patience) == optimizer.param_groups[0]["lr"]


def test_plateau_halves_the_rate_of_the_recipe() -> None:
    recipe = TrainRecipe(lr=1.0, schedule="plateau", plateau_patience=2, plateau_factor=0.1)
    assert rate(recipe, 0, (0.5, 0.4)) == 1.0
    assert rate(recipe, 0, (0.5, 0.4, 0.5)) == pytest.approx(0.1)


@pytest.mark.parametrize(("values", "expected"), [([0.1], 0), ([0.1, 0.2], 0), ([0.2, 0.1, 0.2], 2)])
def test_epochs_since_the_first_best(values: list[float], expected: int) -> None:
    assert epochs_since_best(values) == expected


def sized(*, minutes: float | None, step: float, monkeypatch: pytest.MonkeyPatch, **model: Any) -> int | None:
    """The size that is chosen for digits, of [32, 64, 96], where a step of 16 images at 32 pixels takes so long."""
    monkeypatch.setattr(precision, "step_seconds", lambda *_, **__: step)
    values = {"sizes": [64, 32, 96], "batch_size": 16} | ({} if minutes is None else {"minutes": minutes})
    options = {"name": "timm:resnet18", "fit": "upsample"} | model
    recipe = make_recipe({"data": {"source": "digits", "split": "80-10-10"}, "model": options, "train": values})
    found = with_budget(recipe, prepare(recipe), device=torch.device("cpu"), reporter=Listener())
    size = found.model.options.get("size")
    return None if size is None else int(size)


def test_the_largest_size_that_leaves_enough_passes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # 1,439 images in steps of 16 at 1,600 images/s: 72 s are 80 passes at 32 pixels, 20 at 64, 9 at 96.
    assert sized(minutes=0.4, step=0.01, monkeypatch=monkeypatch) == 64
    assert sized(minutes=0.8, step=0.01, monkeypatch=monkeypatch) == 96
    assert sized(minutes=0.01, step=0.01, monkeypatch=monkeypatch) == 32
    assert sized(minutes=1, step=0.01, monkeypatch=monkeypatch, size=48) == 48


def test_sizes_without_a_budget_are_the_smallest_and_need_a_model_that_resizes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sized(minutes=None, step=0.01, monkeypatch=monkeypatch) == 32
    assert sized(minutes=None, step=0.01, monkeypatch=monkeypatch, size=48) == 48
    with pytest.raises(RecipeError, match=r"model\.fit = 'native'"):
        sized(minutes=1, step=0.01, monkeypatch=monkeypatch, fit="native")


@pytest.mark.parametrize(
    ("minutes", "passes", "few"),
    [(0.8, 10, True), (0.8, 20, False), (None, 20, False), (None, 14, True), (0.8, None, None)],
)
def test_how_often_images_are_seen_says_what_is_done_with_them(
    minutes: float | None, passes: int | None, few: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "PASSES", 8)
    # 0.8 minutes: 13 passes at 64 pixels, as above
    monkeypatch.setattr(precision, "step_seconds", lambda *_, **__: 0.01)
    recipe = make_recipe(
        {
            "data": {"source": "digits", "split": "80-10-10"},
            "model": {"name": "timm:resnet18", "fit": "upsample"},
            "train": {"sizes": [64, 32, 96], "batch_size": 16, "minutes": minutes, "passes": passes, "epochs": 14}
            | {"start_size": 16},
            "augment": {"trivial": True, "mixup": 0.2, "cutmix": 1.0, "crop": 0.1},
        }
    )
    found = with_budget(recipe, prepare(recipe), device=torch.device("cpu"), reporter=Listener())
    augment = found.augment
    assert found.train.start_size == (None if few else 16)
    strong = (False, 0.0, 0.0) if few is False else (True, 0.2, 1.0)
    assert (augment.trivial, augment.mixup, augment.cutmix, augment.crop) == (*strong, 0.1)
    assert chosen_before(recipe, found) == found


def test_what_the_user_asks_for_stays_whatever_the_budget_and_what_is_left_out_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "step_seconds", lambda *_, **__: 0.01)  # 53 passes
    recipe = make_recipe(
        {
            "data": {"source": "digits", "split": "80-10-10"},
            "model": {"name": "timm:resnet18", "fit": "upsample"},
            "train": {"sizes": [64], "batch_size": 16, "minutes": 0.8, "passes": 60, "start_size": 16},
            "augment": {"mixup": 0.4, "cutmix": 1.0},
        }
    )
    listener = Listener()
    found = with_budget(recipe, prepare(recipe), asked={"augment.mixup"}, device=torch.device("cpu"), reporter=listener)
    assert (found.augment.mixup, found.augment.cutmix) == (0.4, 0)
    assert listener.said[-1].endswith("passes over 1,439 images, too few for cutmix, which is left out")
    other = recipe.model_copy(update={"augment": recipe.augment.model_copy(update={"mixup": 0.5})})
    assert chosen_before(other, found, asked={"augment.mixup"}).augment.mixup == 0.5  # refused as another training


def test_a_budget_is_timed_without_the_layers_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    learning: list[float] = []

    def timed(model: nn.Module, *_: object, **__: object) -> float:
        learning.append(sum(p.requires_grad for p in model.parameters()) / len(list(model.parameters())))
        return 0.01

    monkeypatch.setattr(precision, "step_seconds", timed)
    for freeze in (0.0, 0.5):
        recipe = make_recipe(
            {
                "data": {"source": "digits", "split": "80-10-10"},
                "model": {"name": "timm:resnet18", "fit": "upsample", "pretrained": True},
                "train": {"sizes": [32], "minutes": 1, "freeze": freeze},
            }
        )
        with_budget(recipe, prepare(recipe), device=torch.device("cpu"), reporter=Listener())
    assert max(learning) == 1
    assert 0.2 < min(learning) < 0.8


def test_processes_that_train_together_are_to_be_given_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "processes", lambda: (0, 2))
    with pytest.raises(RecipeError, match=r"train\.sizes: expected one process, .*; set model\.size, such as 32"):
        sized(minutes=1, step=0.01, monkeypatch=monkeypatch)
    assert sized(minutes=1, step=0.01, monkeypatch=monkeypatch, size=48) == 48
