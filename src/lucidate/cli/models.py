"""`lucidate models`."""

from __future__ import annotations

from lucidate.cli import console
from lucidate.cli.options import Json


def models(json: Json = False) -> None:
    """List the models that a recipe can name, with their options and defaults.

    Example: lucidate models
    """
    from lucidate.models import models as registry

    known = {name: registry.options(name) for name in registry}
    lines = []
    for name, options in known.items():
        summary = (registry[name].__doc__ or "").splitlines()[0]
        lines += [f"{name}: {summary}", *(f"  {option} = {default!r}" for option, default in options.items())]
    console.emit({"models": known}, "\n".join(lines), as_json=json)
