"""What studies share: their runs lie in one folder, whose file says what was begun there, so that they can go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lucidate.core.atomic import atomic_write
from lucidate.core.errors import RunError


def begin(
    path: Path, asked: dict[str, Any], *, what: str, sections: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Note in a study's file what is run beside it. Raises RunError where something else was begun.

    what: the study, in words. sections: of what was asked, those that must stay as they are.
    """
    if not path.exists():
        atomic_write(path, json.dumps(asked, indent=1).encode())
        return
    try:
        before = sections(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}: expected {what} that lucidate began; choose another --out") from None
    for section, value in sections(asked).items():
        if before.get(section) != value:
            raise RunError(
                f"--out: expected {what} that {path.parent} was begun with, {section} = {before.get(section)}, "
                f"received {value}; repeat that, or choose another --out"
            )
