"""Options that several verbs share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

# Help texts are read as markup: text in square brackets would vanish.
RUN = "A run folder, or a model from elsewhere: an .onnx or .keras file, or a TOML that names a timm model."
RunArgument = Annotated[Path, Argument(metavar="RUN", help=RUN)]
Json = Annotated[bool, Option("--json", help="Print one JSON object on standard output, last.")]
Split = Annotated[str, Option(metavar="SPLIT", help="train, validation or test.")]
Device = Annotated[str, Option(metavar="DEVICE", help="auto, cpu or cuda.")]
Out = Annotated[Path | None, Option(metavar="DIR", help="Where the run goes. (default: runs/RECIPE)")]
Set = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override a recipe key; may be repeated.")]
Size = Annotated[int | None, Option(metavar="PIXELS", help="Side at which images are packed, 8 to 512.")]
