"""What the scripts that race predictions compute of what they measure."""

from __future__ import annotations

import numpy as np
import pytest

from bench_scripts import script


def turns(*whole: float) -> list[dict[str, float]]:
    return [{"whole": value, "images_per_second": 100 / value, "accuracy": 0.5} for value in whole]


def test_ratios_are_of_each_sides_best_turn_and_of_the_better_loader() -> None:
    found = {f"{name}_{state}": turns(9.0, 4.0) for name in ("torch", "onnx") for state in ("cold", "warm")}
    found |= {"onnx-int8_cold": turns(3.0, 6.0), "onnx-int8_warm": turns(2.0, 8.0)}
    found |= {"loader_0": turns(12.0, 13.0), "loader_2": turns(11.0, 16.0)}
    result = script("bulk_prediction").summarized(found, 100)
    assert result["ratio"]["torch_cold"] == pytest.approx(11 / 4)
    assert result["ratio"]["onnx-int8_warm"] == pytest.approx(11 / 2)
    assert result["images_per_second"]["onnx-int8_warm"] == pytest.approx(50)
    assert result["seconds"]["loader_0"] == 12.0


def test_every_side_is_asked_in_every_turn_and_counted_in_images() -> None:
    bench, asked = script("inference"), []

    def side(name: str) -> object:
        return lambda images: asked.append((name, len(images)))

    rates = bench.raced({"a": side("a"), "b": side("b")}, np.zeros((4, 8, 8, 3), np.uint8), turns=3, seconds=0.0)
    assert [name for name, _ in asked] == ["a", "b"] * 4  # once to set up
    assert {count for _, count in asked} == {4}
    assert [len(values) for values in rates.values()] == [3, 3]
    assert all(value > 0 for values in rates.values() for value in values)


def test_the_table_has_a_line_a_side() -> None:
    rates = {"torch": 100.0, "onnx": 12345.6}
    text = script("inference").table({"images_per_second": dict.fromkeys(("1", "32", "256"), rates)})
    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[2].split() == ["onnx", "12,346", "12,346", "12,346"]
    assert len({len(line) for line in lines}) == 1
