"""Which models are to be served, and under which names; quick to import, since most mistakes are made here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lucidate.core.errors import ServeError
from lucidate.core.run import RunDir

NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")  # of a model: it stands in addresses


def name_runs(arguments: Sequence[str]) -> dict[str, Path]:
    """Runs by the names they are served under: that of `NAME=RUN`, else the folder's, or a file's without its ending.

    Checks that they can be opened; loads nothing. Raises ServeError, RunError.
    """
    runs: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).exists():  # a folder's own name may hold "="
            name, path = "", argument
        place = Path(path)
        name = name or _plain_name(place)
        if not NAME.fullmatch(name) or ".." in name:
            raise ServeError(
                f"run: expected a name of letters, digits, '.', '_' and '-', received {name!r}; choose one as NAME=RUN"
            )
        if name in runs:
            raise ServeError(
                f"run: expected each name once, received {name} for {runs[name]} and for {place}; "
                "rename one as NAME=RUN"
            )
        if not place.is_file():
            RunDir.open(place)
        runs[name] = place
    return runs


def _plain_name(place: Path) -> str:
    whole = place.resolve()  # "." has no name
    return whole.name if whole.is_dir() else whole.stem
