"""A teacher sees what its student sees, in its own way; and its answers count as the recipe says."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fakes import Listener, TwoLayers, colored_batches, colored_images
from lucidate.core.atomic import sha256
from lucidate.core.errors import Interrupted, RunError
from lucidate.core.recipe import DistillRecipe, Recipe, make_recipe
from lucidate.core.records import History, RunCard
from lucidate.core.run import RunDir
from lucidate.data.batches import Dataset, prepare
from lucidate.data.preprocess import Preprocess
from lucidate.models.checkpoint import load_model
from lucidate.models.predictor import InferenceConfig
from lucidate.studies.ensemble import ensemble_runs
from lucidate.training.checkpoint import Checkpoints
from lucidate.training.loop import Training, train_model
from lucidate.training.teacher import Teacher, class_order, distillation_loss, load_teacher
from lucidate.training.trainer import TrainJob, fit

SEEN = Preprocess(8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))  # as of the colored batches
CPU = torch.device("cpu")
TINY = {"name": "compact", "widths": [4, 4, 4], "dense": 8}
STEPS = 4  # an epoch: 60 images in batches of 16


def config(preprocess: Preprocess, order: tuple[int, ...] = (0, 1, 2)) -> InferenceConfig:
    return InferenceConfig(preprocess, order=order)


class Watched(nn.Module):
    """Gives three columns that can be told apart, and keeps what it was shown."""

    def forward(self, images: Tensor) -> Tensor:
        self.shown = images.clone()
        return images.mean(dim=(1, 2, 3))[:, None] + torch.tensor([0.0, 10.0, 20.0], dtype=images.dtype)


def test_the_loss_is_hintons() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64) * 3
    hard = torch.tensor(1.7, dtype=torch.float64)
    for temperature, weight in ((1.0, 0.5), (4.0, 0.9), (0.5, 1.0)):
        q, p = (torch.exp(x / temperature) / torch.exp(x / temperature).sum(1, keepdim=True) for x in (ours, theirs))
        by_hand = (1 - weight) * hard + weight * temperature**2 * (p * (p.log() - q.log())).sum() / 7
        recipe = DistillRecipe(temperature=temperature, weight=weight)
        found = distillation_loss(hard, ours, theirs, recipe=recipe)
        torch.testing.assert_close(found, by_hand, rtol=1e-12, atol=1e-12)
        torchs = functional.kl_div((ours / temperature).log_softmax(1), p, reduction="sum") / 7
        torch.testing.assert_close(found, (1 - weight) * hard + weight * temperature**2 * torchs)


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn_from_it() -> None:
    logits = torch.randn(6, 4, requires_grad=True)
    recipe = DistillRecipe(temperature=3.0, weight=1.0)
    loss = distillation_loss(torch.tensor(9.0), logits, logits.detach().clone() + 5.0, recipe=recipe)
    loss.backward()
    assert abs(loss.item()) < 1e-5
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-6, rtol=0)


def test_the_teacher_gets_the_same_pixels_in_its_own_normalization() -> None:
    pixels = torch.from_numpy(colored_images(12)[0])
    own = Preprocess(8, (0.1, 0.2, 0.3), (0.4, 0.3, 0.2))
    teacher = Teacher(Watched(), config(own), SEEN, "float32")
    teacher.logits(SEEN.normalize(pixels))
    torch.testing.assert_close(teacher.model.shown, own.normalize(pixels), atol=2e-6, rtol=0)
    assert teacher.model.shown.is_contiguous(memory_format=torch.channels_last)
    alike = Teacher(Watched(), config(SEEN), SEEN, "float32")
    images = SEEN.normalize(pixels)
    alike.logits(images)
    assert torch.equal(alike.model.shown, images)  # no bit is lost on a way there and back


def test_the_teacher_gets_images_of_its_own_size() -> None:
    pixels = torch.from_numpy(colored_images(12)[0])
    own = Preprocess(20, (0.1, 0.2, 0.3), (0.4, 0.3, 0.2))
    teacher = Teacher(Watched(), config(own), SEEN, "float32")
    teacher.logits(SEEN.normalize(pixels))
    expected = teacher.config.normalize(pixels.permute(0, 3, 1, 2) / 255)
    assert teacher.model.shown.shape == (12, 3, 20, 20)
    torch.testing.assert_close(teacher.model.shown, expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize(
    ("precision", "kind"), [("float32", torch.float32), ("bfloat16", torch.float32), ("float64", torch.float64)]
)
def test_answers_come_in_the_students_order_and_type(precision: str, kind: torch.dtype) -> None:
    teacher = Teacher(Watched(), config(SEEN, order=(2, 0, 1)), SEEN, precision)
    answers = teacher.logits(SEEN.normalize(torch.from_numpy(colored_images(4)[0])))
    assert answers.dtype == kind
    assert (answers[0] - answers[0].min()).tolist() == pytest.approx([20.0, 0.0, 10.0], abs=0.1)
    assert not answers.requires_grad
    assert not answers.is_inference()


def a_teacher(seed: int = 3) -> Teacher:
    torch.manual_seed(seed)
    model = TwoLayers().eval().requires_grad_(False)
    return Teacher(model, config(Preprocess(8, (0.4, 0.4, 0.4), (0.3, 0.3, 0.3)), (1, 2, 0)), SEEN, "float32")


def train(
    teacher: Teacher | None,
    folder: Path | None = None,
    *,
    stop: Callable[[], bool] = lambda: False,
    labels_moved: int = 0,
    **distill: Any,
) -> tuple[TwoLayers, History]:
    torch.manual_seed(7)  # the initial weights
    model, listener = TwoLayers(), Listener()
    batches = colored_batches(range(60))
    batches.labels[:] = (batches.labels + labels_moved) % 3
    settings = {"epochs": 4, "lr": 0.02, "batch_size": 16, "restore_best": False, "label_smoothing": 0.1}
    history = train_model(
        model,
        Training(
            batches=batches,
            validation=colored_batches(range(60, 90)),
            recipe=make_recipe({"train": settings, "augment": {"rotation": 0.1, "mixup": 0.4}, "distill": distill}),
            flips=True,
            reporter=listener,
            checkpoints=Checkpoints(folder, reporter=listener) if folder else None,
            stop=stop,
            teacher=teacher,
        ),
    )
    return model, history


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_without_weight_a_teacher_changes_no_bit_and_with_all_of_it_labels_do_not() -> None:
    alone, taught = train(None)[0], train(a_teacher(), weight=0.0)[0]
    assert same(alone, taught)
    assert not same(alone, train(a_teacher(), weight=0.5)[0])
    by_teacher = train(a_teacher(), weight=1.0)[0]
    assert same(by_teacher, train(a_teacher(), weight=1.0, labels_moved=1)[0])
    assert not same(alone, train(None, labels_moved=1)[0])
    assert not same(by_teacher, train(a_teacher(), weight=1.0, temperature=1.5)[0])


def test_a_student_comes_to_answer_as_its_teacher() -> None:
    teacher = a_teacher()
    (model, history), (alone, _) = train(teacher, weight=1.0, temperature=2.0), train(None)
    assert history.loss[-1] < history.loss[0] / 2
    images = SEEN.normalize(torch.from_numpy(colored_images()[0][60:]))
    with torch.no_grad():
        wanted = (teacher.logits(images) / 2).softmax(1)
        gaps = [((net.eval()(images) / 2).softmax(1) - wanted).abs().mean().item() for net in (model, alone)]
    assert gaps[0] < gaps[1] / 2


@pytest.mark.parametrize("stops", [[1], [STEPS + 1], [3, STEPS, 2]])
def test_a_distillation_goes_on_to_the_same_bits(tmp_path: Path, stops: list[int]) -> None:
    whole = train(a_teacher())
    for steps in stops:
        counter = count(1)
        with pytest.raises(Interrupted):
            train(a_teacher(), tmp_path, stop=lambda: next(counter) == steps)  # noqa: B023  (called before it moves on)
    again = train(a_teacher(), tmp_path)
    assert same(again[0], whole[0])
    assert again[1].loss == whole[1].loss


def tiny_recipe(**sections: dict[str, Any]) -> Recipe:
    values = {"data": {"split": "80-10-10", "train_size": 200}, "model": TINY, "train": {"epochs": 1}}
    return make_recipe({**values, **sections})


@pytest.fixture(scope="module")
def images() -> Dataset:
    return prepare(tiny_recipe())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, images: Dataset) -> list[RunDir]:
    """Two tiny runs on the digits that ask for test-time views."""
    made = []
    for seed in range(2):
        run = RunDir(tmp_path_factory.mktemp("runs") / f"run{seed}")
        with run.claim():
            recipe = tiny_recipe(predict={"views": "mirror-shift"}).model_copy(update={"seed": seed})
            fit(TrainJob(recipe, run, images, CPU))
        made.append(run)
    return made


def test_a_run_teaches_by_one_view_in_evaluation_mode(runs: list[RunDir], images: Dataset, tmp_path: Path) -> None:
    shown = next(images.batches("train", batch_size=8).in_order())[0]
    names = images.pack.class_names
    teacher = load_teacher(
        runs[0], classes=names[::-1], seen=images.preprocess, device=torch.device("cpu"), precision="float32"
    )
    with torch.no_grad():
        expected = load_model(runs[0])(shown)
    assert torch.equal(teacher.logits(shown), expected.flip(1))
    assert not any(p.requires_grad for p in teacher.model.parameters())

    both = RunDir(tmp_path / "both")
    with both.claim():
        ensemble_runs(runs, both)
    together = load_teacher(
        both, classes=names, seen=images.preprocess, device=torch.device("cpu"), precision="float32"
    )
    with torch.no_grad():
        mean = torch.stack([load_model(run)(shown).softmax(1) for run in runs]).mean(0)
    torch.testing.assert_close(together.logits(shown).softmax(1), mean, atol=1e-5, rtol=0)


def test_other_classes_are_refused_by_name(runs: list[RunDir]) -> None:
    card = RunCard.load(runs[0].card)
    with pytest.raises(
        RunError, match="the 2 classes of the images, received a run without cat and dog and with 0, 1, 2"
    ):
        class_order(card, ["cat", "dog"])
    assert class_order(card, [*card.classes[5:], *card.classes[:5]]) == (5, 6, 7, 8, 9, 0, 1, 2, 3, 4)


def test_another_teacher_is_refused_and_the_run_card_names_the_one(
    runs: list[RunDir], images: Dataset, tmp_path: Path
) -> None:
    recipe = tiny_recipe(distill={"teacher": sha256(runs[0].weights), "weight": 0.5})
    run = RunDir(tmp_path / "student")
    with pytest.raises(RunError, match=r"teacher: expected weights of checksum .*, received weights of checksum"):
        fit(TrainJob(recipe, run, images, CPU, teacher=runs[1]))
    with pytest.raises(RunError, match=r"teacher: expected weights of checksum .*, received none"):
        fit(TrainJob(recipe, run, images, CPU))
    with pytest.raises(RunError, match=r"teacher: expected none, as distill.teacher says, received weights"):
        fit(TrainJob(tiny_recipe(), run, images, CPU, teacher=runs[1]))
    assert not run.path.exists()
    calls = count(1)
    with run.claim(), pytest.raises(Interrupted):
        fit(TrainJob(recipe, run, images, CPU, teacher=runs[0]), stop=lambda: next(calls) == 2)
    other = tiny_recipe(distill={"teacher": sha256(runs[1].weights), "weight": 0.5})
    with run.claim(resume=True), pytest.raises(RunError, match="expected the recipe that the run was started with"):
        fit(TrainJob(other, run, images, CPU, teacher=runs[1]))
    with run.claim(resume=True):
        card = fit(TrainJob(recipe, run, images, CPU, teacher=runs[0]))
    assert card.recipe.distill.teacher == sha256(runs[0].weights)
    assert "Distilled from run0 (compact, " in card.notes[-1]
    assert "trained on 199 images" in card.notes[-1]
    assert np.isfinite(History.load(run.history).loss).all()
