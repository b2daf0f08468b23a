"""The model that comes along: small, whole, and usable at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lucidate.core.records import History, RunCard
from lucidate.core.run import RunDir
from lucidate.predict.new_data import predict_files

RUN = RunDir(Path(__file__).parents[2] / "models" / "cifar10-fastnet")


def test_it_is_small_and_in_half_precision() -> None:
    assert RUN.weights.stat().st_size <= 5_000_000
    kinds = {value.dtype for value in load_file(RUN.weights).values()}
    assert kinds == {torch.float16, torch.int64}  # counters of BatchNorm stay whole numbers


def test_its_run_card_says_what_its_figures_mean_and_its_history_belongs_to_it() -> None:
    card, history = RunCard.load(RUN.card), History.load(RUN.history)
    assert card.status == "finished"
    assert any("re-encoded" in note for note in card.notes)
    assert card.results.test_openings == 1
    assert history.epochs == card.results.epochs == card.recipe.train.epochs
    assert history.val_accuracy[-1] == pytest.approx(card.results.val_accuracy_one_view, abs=0.002)
    text = RUN.card.read_text(encoding="utf-8")
    assert card.data.path is None
    assert json.loads(text)["data"]["source"] == "cifar10"
    assert "/" not in card.command


def test_it_answers_for_images_of_any_size(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    files = [tmp_path / "small.png", tmp_path / "wide.jpg"]
    for file, shape in zip(files, [(32, 32, 3), (300, 480, 3)], strict=True):
        Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8)).save(file)
    answers = predict_files(RunDir.open(RUN.path), files, top=10)
    for answer in answers:
        assert sum(answer.probabilities) == pytest.approx(1)
        assert sorted(answer.classes) == sorted(RunCard.load(RUN.card).classes)
        assert list(answer.probabilities) == sorted(answer.probabilities, reverse=True)
