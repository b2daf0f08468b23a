"""Options that several verbs share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Data = Annotated[
    str | None,
    typer.Option(metavar="SRC", help="digits, cifar10, or a path to images; overrides the recipe's data.source."),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the run goes. (default: runs/RECIPE)")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; may be repeated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, last.")]
Split = Annotated[str, typer.Option(metavar="SPLIT", help="train, validation or test.")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")]
