"""`lucidate models`."""

from __future__ import annotations

from typing import Annotated

import typer

from lucidate.cli import console
from lucidate.cli.options import Json

Pattern = Annotated[str | None, typer.Option(metavar="PATTERN", help="List timm's names that match, such as resnet*.")]


def models(timm: Pattern = None, json: Json = False) -> None:
    """List the models that a recipe can name, with their options and defaults.

    Example: lucidate models --timm "vit_tiny*"
    """
    from lucidate.models import build  # noqa: F401  which registers them
    from lucidate.models.registry import models as registry

    if timm is not None:
        from lucidate.models.timm import names

        found = names(timm)
        console.emit({"models": found}, "\n".join(found) or f"timm has no model like {timm!r}", as_json=json)
        return
    known = {name: registry.options(name) for name in registry}
    lines = []
    for name, options in known.items():
        summary = (registry[name].__doc__ or "").splitlines()[0]
        lines += [f"{name}: {summary}", *(f"  {option} = {default!r}" for option, default in options.items())]
    lines.append("timm:NAME: any model of timm; lucidate models --timm PATTERN lists them")
    console.emit({"models": known}, "\n".join(lines), as_json=json)
