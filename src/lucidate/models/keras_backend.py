"""Keras 3, computing with torch."""

from __future__ import annotations

import os
import sys
from types import ModuleType

from lucidate.core.errors import ExportError


def keras_on_torch() -> ModuleType:
    """The `keras` module on the torch backend; its import takes seconds. Raises ExportError where it cannot be had."""
    before = os.environ.get("KERAS_BACKEND")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"  # read once, when Keras is imported
    try:
        import keras
    except ImportError:
        raise ExportError(
            "keras: expected Keras 3, which is not installed; get it with: pip install 'lucidate[keras]'"
        ) from None
    finally:
        if before is None:
            os.environ.pop("KERAS_BACKEND", None)
        else:
            os.environ["KERAS_BACKEND"] = before
    if keras.backend.backend() != "torch":
        raise ExportError(
            f"keras: expected Keras on torch, received it on {keras.backend.backend()}; set KERAS_BACKEND=torch"
        )
    return keras
