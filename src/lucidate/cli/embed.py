"""`lucidate embed`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import Json
from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard
from lucidate.core.registry import TIMM
from lucidate.data.splits import source_of

Model = Annotated[
    str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a pretrained network such as timm:resnet50.")
]
Source = Annotated[
    str | None, typer.Option(metavar="SRC", help="digits, cifar10, or a path to images. (default: the run's own)")
]
File = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write them here as well: .parquet with ids, or .npy of numbers.")
]
Size = Annotated[
    int | None, typer.Option(metavar="PIXELS", min=16, max=512, help="A pretrained network's side. (default: its own)")
]


def embed(model: Model, data: Source = None, out: File = None, size: Size = None, json: Json = False) -> None:
    """Compute what a network's last layer sees of each image: float16, kept by id, reused when asked for again.

    Example: lucidate embed timm:tf_efficientnet_lite0 --data photos/ --size 96 --out embeddings.npy
    """
    from lucidate.export import embedder as models
    from lucidate.predict import embed as embedding

    if out is not None:
        embedding.require_kind(out)
    held: AbstractContextManager[None] = nullcontext()
    with console.reporter() as reporter:
        if model.startswith(TIMM):
            if data is None:
                raise LucidateError("--data: expected the images to embed, received none")
            chosen, source = models.of_pretrained(model, size=size), data
        else:
            if size is not None:
                raise LucidateError(f"--size: expected only with a pretrained network ({TIMM}NAME), received a run")
            run = stages.open_run(Path(model))
            chosen, source = models.of_run(run), data or source_of(RunCard.load(run.card))
            held = run.lock()
        with held:
            file = embedding.embed_source(chosen, source, reporter=reporter)
    if out is not None:
        embedding.save_copy(file.path, out)
    shown = out or file.path
    how = "computed before" if file.reused else f"{file.images_per_second:,.0f} images/s, {file.backend}"
    text = f"{file.images:,} embeddings of {file.dimension:,} numbers ({how})\n{shown}"
    console.emit({**asdict(file), "path": str(shown)}, text, as_json=json)
