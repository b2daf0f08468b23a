"""Options that several verbs share, so that they read the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

# Help texts are read as markup: text in square brackets would vanish.
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.")]
RUN = "A run folder, or a model from elsewhere: an .onnx or .keras file, or a TOML that names a timm model."
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help=RUN)]
OptionalRun = Annotated[Path | None, typer.Argument(metavar="RUN", help=RUN)]
Data = Annotated[
    str | None,
    typer.Option(metavar="SRC", help="digits, cifar10, or a path to images; overrides the recipe's data.source."),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="What the images are called in pages and files. (default: the source's)"
    ),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the run goes. (default: runs/RECIPE)")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; may be repeated.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the training in --out from its last checkpoint, to the same bits.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, last.")]
Split = Annotated[str, typer.Option(metavar="SPLIT", help="train, validation or test.")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")]

# Of `analyze` and `gallery`, which take a run or anybody's predictions.
PredictionsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Anybody's predictions: Parquet or npz with labels and logits or probabilities."),
]
Images = Annotated[str | None, typer.Option(metavar="SRC", help="The images that --predictions speaks of.")]
HistoryFile = Annotated[Path | None, typer.Option(metavar="FILE", help="history.json as Keras writes it, for curves.")]
OptionalSplit = Annotated[
    str | None,
    typer.Option(metavar="SPLIT", help="Which images. (default: test, or all where there is no test split)"),
]
Size = Annotated[int | None, typer.Option(metavar="PIXELS", help="Side at which images are packed, 8 to 512.")]


def settings(overrides: list[str] | None, *, name: str | None) -> list[str]:
    """What `--set` and `--name` say, as overrides of a recipe."""
    return [*(overrides or []), *([f"data.name={json.dumps(name, ensure_ascii=False)}"] if name else [])]
