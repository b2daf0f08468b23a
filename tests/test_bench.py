"""What the scripts in bench/ compute of what they measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench_scripts import BENCH, script
from fakes import TwoLayers
from lucidate.core.records import History


def entry(recipe: str, seed: int, seconds: float = 10.0) -> dict[str, Any]:
    values = [0.6, 0.75, 0.83, 0.9]
    return {
        "recipe": recipe,
        "seed": seed,
        "val_accuracy": values,
        "epoch_seconds": [seconds] * 4,
        "pack": "p",
        "hardware": {"cores": 2},
    }


def test_a_mark_is_reached_at_the_end_of_the_first_epoch_that_has_it() -> None:
    bench = script("time_to_accuracy")
    history = History(val_accuracy=(0.6, 0.81, 0.79, 0.86), epoch_seconds=(10.0, 11.0, 12.0, 13.0))
    assert bench.reached(history) == {
        "0.70": 21.0,
        "0.80": 21.0,
        "0.82": 46.0,
        "0.85": 46.0,
        "0.88": None,
        "0.90": None,
    }


def test_a_run_takes_the_place_of_its_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = script("time_to_accuracy")
    monkeypatch.setattr(bench, "RESULT", tmp_path / "results.json")
    (tmp_path / "results.json").write_text(json.dumps([entry("fast", 0), entry("fast", 1)]))
    merged = bench.merged([entry("fast", 1, seconds=5.0), entry("strong", 0)])
    found = [(item["recipe"], item["seed"], item["epoch_seconds"][0]) for item in merged]
    assert found == [("fast", 0, 10.0), ("fast", 1, 5.0), ("strong", 0, 10.0)]


def test_the_figure_is_drawn_from_results(tmp_path: Path) -> None:
    bench = script("accuracy_figure")
    minutes, accuracies = bench.curves([entry("fast", 0), entry("fast", 1, seconds=20.0)])
    assert minutes.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert accuracies.shape == (2, 4)
    bench.draw([entry("fast", 0), entry("fast", 1), entry("strong", 0)], ["gpu94"], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_shipped_results_are_of_named_machines() -> None:
    paths = sorted((BENCH / "results").glob("*.json"))
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert '"processor"' in text, path
        assert '"versions"' in text, path


def test_halved_weights_are_the_same_values_rounded(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    bench, model = script("ship"), torch.nn.Sequential(TwoLayers(), torch.nn.BatchNorm2d(3))
    save_file(model.state_dict(), tmp_path / "whole.safetensors")
    bench.halve(tmp_path / "whole.safetensors", tmp_path / "half.safetensors")
    halved = load_file(tmp_path / "half.safetensors")
    for name, value in model.state_dict().items():
        assert halved[name].dtype == (torch.float16 if value.is_floating_point() else value.dtype)
        torch.testing.assert_close(halved[name].to(value.dtype), value, atol=1e-3, rtol=1e-3)
