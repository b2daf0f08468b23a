"""What holds for the package as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lucidate

ROOT = Path(__file__).parents[1]
PUBLIC = [
    "AugmentRecipe",
    "DataRecipe",
    "History",
    "LucidateError",
    "ModelRecipe",
    "Predictions",
    "Recipe",
    "Run",
    "RunCard",
    "TrainRecipe",
    "analyze",
    "dataset",
    "ensemble",
    "gallery",
    "levels",
    "load",
    "load_recipe",
    "train",
    "__version__",
]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_public_names_are_these_and_each_can_be_used() -> None:
    assert sorted(lucidate.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(lucidate, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lucidate.nonsense


def test_importing_loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "pandas", "plotly", "matplotlib", "sklearn", "pyarrow", "PIL", "pydantic", "typer"]
    code = f"import sys, lucidate; print([m for m in {heavy} if m in sys.modules])"
    assert python(code) == "[]"


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom lucidate.cli.main import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    assert python(code).splitlines()[-1] == "0 False"


def test_a_server_of_graphs_starts_without_torch() -> None:
    """It takes a second and 200 MiB, which only explaining by gradients, and models without a graph, need."""
    code = "import sys, lucidate.serve.server, lucidate.serve.calibration; print('torch' in sys.modules)"
    assert python(code) == "False"


def test_no_file_of_the_package_is_over_350_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "src").rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert long == {}


@pytest.mark.parametrize(("name", "value", "expected"), [("X", "", "1000"), ("OMP_WAIT_POLICY", "ACTIVE", "None")])
def test_the_command_tunes_its_process_unless_told_otherwise(name: str, value: str, expected: str) -> None:
    code = (
        f"import os; os.environ[{name!r}] = {value!r}; os.environ.pop('GOMP_SPINCOUNT', None)\n"
        "from lucidate.cli.process import tune_process\n"
        "tune_process(); print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    assert python(code) == expected
