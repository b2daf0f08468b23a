"""What others named cannot steer the terminal, nor forge a line: names of classes and files, in results and errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.test_explain import call, mistake
from graphs import graph, write_toml
from lucidate.cli.main import main

HOSTILE = ("\x1b[2Jred", "gr\u202eeen", "blue\nerror: your disk is empty")
CLEAN = ("\\x1b[2Jred", "gr\\u202eeen", "blue\\nerror: your disk is empty")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in HOSTILE:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "photos" / HOSTILE[0] / "\x1b]0;title\x07.txt").touch()
    return tmp_path / "photos"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert ended.value.code == status, err
    assert not CONTROL.search(out + err)
    return out, err


def test_class_names_of_folders(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(capsys, "data", "info", str(photos))
    lines = out.splitlines()
    assert [line for line in lines if line.endswith(": 4")] == [f"  {name}: 4" for name in sorted(CLEAN)]
    assert f"  {CLEAN[0]}/\\x1b]0;title\\x07.txt: not an image file (.txt)" in lines
    assert len(lines) == 7
    assert set(call(capsys, "data", "info", str(photos))["classes"]) == set(HOSTILE)  # JSON has them as they are


def test_class_names_of_a_model(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_toml(graph(tmp_path / "m.onnx"), classes=HOSTILE).with_suffix(".onnx")
    image = photos / HOSTILE[2] / "0.png"
    out, _ = printed(capsys, "predict", str(path), str(image))
    line, probabilities = out.splitlines()
    assert probabilities.startswith("probabilities: ")
    assert all(name in line for name in CLEAN)
    with pytest.raises(SystemExit):
        main(["predict", str(path), str(image), "--json"])
    answer = json.loads(capsys.readouterr().out)["images"][0]
    assert (set(answer["classes"]), answer["path"]) == (set(HOSTILE), str(image))


def test_names_in_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_toml(graph(tmp_path / "m.onnx")).with_suffix(".onnx")
    name = "a\x1b[31m\u202e\nb.png"
    _, err = printed(capsys, "predict", str(path), name, status=2)
    assert "a\\x1b[31m\\u202e b.png: expected an image file; there is none" in err
    assert len(err.splitlines()) <= 2  # and where the model's run is kept
    assert "\\x1b]0;evil\\x07" in mistake(capsys, "data", "info", "\x1b]0;evil\x07")
    assert "\\x1b[1m" in mistake(capsys, "predict", "--\x1b[1m")
