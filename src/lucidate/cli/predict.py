"""`lucidate predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import Device, Json, RunArgument, Split
from lucidate.core.errors import LucidateError
from lucidate.core.records import Predictions, jsonable, slug
from lucidate.core.rundir import RunDir

Files = Annotated[list[Path] | None, typer.Argument(metavar="IMAGE…", help="Image files to name the classes of.")]
Data = Annotated[str | None, typer.Option(metavar="SRC", help="Other images than the run's own.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="With --data: where they go. (default: predictions-NAME.parquet)")
]


def predict(
    run: RunArgument,
    files: Files = None,
    data: Data = None,
    out: Out = None,
    split: Split = "test",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Predict a split of a run's own images, other images, or single files.

    Examples: lucidate predict runs/compact --split validation;
    lucidate predict models/cifar10-fastnet cat.jpg dog.png;
    lucidate predict models/cifar10-fastnet --data photos/ --out photos.parquet
    """
    folder = RunDir.open(run)
    if files and (data or out):
        raise LucidateError("predict: expected image files or --data, received both")
    if out and not data:
        raise LucidateError("--out: expected only with --data; a run's own predictions go into the run")
    if files:
        name_classes(folder, files, device=device, json=json)
        return
    with console.reporter() as reporter:
        if data:
            from lucidate.predict import predict_source

            predictions = predict_source(
                folder, data, split=split, device=stages.pick_device(device), reporter=reporter
            )
            path = out or Path(f"predictions-{slug(predictions.dataset)}.parquet")
            predictions.save(path)
        else:
            from lucidate.predict import predict_run

            with folder.lock():
                predictions = predict_run(folder, split, device=stages.pick_device(device), reporter=reporter)
            path = folder.predictions(split)
    tell(run, predictions, path, json=json)


def tell(run: Path, predictions: Predictions, path: Path, *, json: bool) -> None:
    """What was predicted, how well, and where it is."""
    split, accuracy = predictions.split, predictions.accuracy
    result = {"run": str(run), "split": split, "images": len(predictions), "accuracy": accuracy}
    text = f"{split} accuracy {accuracy:.4f} on {len(predictions):,} images\n{path}"
    console.emit({**result, "predictions": str(path)}, text, as_json=json)


def name_classes(folder: RunDir, files: list[Path], *, device: str, json: bool) -> None:
    """A line a file: its likeliest classes."""
    from lucidate.predict import predict_files

    answers = predict_files(folder, files, device=stages.pick_device(device))
    lines = [
        f"{answer.path}  "
        + "  ".join(f"{name} {share:.1%}" for name, share in zip(answer.classes, answer.probabilities, strict=True))
        for answer in answers
    ]
    console.emit({"run": str(folder.path), "images": jsonable(answers)}, "\n".join(lines), as_json=json)
