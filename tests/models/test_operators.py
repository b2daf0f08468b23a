from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_torchvision_can_be_imported_whichever_torch_it_was_built_for() -> None:
    code = (
        "from lucidate.models.timm import declare_missing_operators\n"
        "declare_missing_operators()\n"
        "import torchvision\n"
        "from torchvision.transforms import v2\n"
        "declare_missing_operators()\n"  # again, and where the operators exist: nothing happens
        "print(v2.RandomHorizontalFlip().p)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "0.5", done.stderr
