"""`lucidate ensemble`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import Device, Json, Out
from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard, jsonable
from lucidate.core.run import RunDir, fresh_path

Runs = Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Finished runs on the same images and split.")]
How = Annotated[
    str,
    typer.Option(
        metavar="METHOD",
        help="softmax: the mean of probabilities; logits: of logits; weighted: shares fitted on validation; "
        "greedy: members selected on validation.",
    ),
]


def ensemble(
    runs: Runs, out: Out = None, combine: How = "softmax", device: Device = "auto", json: Json = False
) -> None:
    """Combine runs into one, which can be predicted, shown and compared like any other.

    Example: lucidate ensemble runs/resnet50 runs/vit_tiny runs/fastnet --out runs/ensemble
    """
    members = [stages.open_run(path) for path in runs]
    folder = RunDir(out or fresh_path(Path("runs"), "ensemble"))
    RunDir.free(folder.path)
    from lucidate.studies.combine import METHODS
    from lucidate.studies.ensemble import ensemble_runs

    if combine not in METHODS:
        raise LucidateError(f"--combine: expected one of {', '.join(METHODS)}, received {combine!r}")
    with console.reporter() as reporter, folder.claim():
        gain = ensemble_runs(
            members,
            folder,
            method=combine,
            device=stages.pick_device(device),
            command=" ".join(["lucidate", *sys.argv[1:]]),
            reporter=reporter,
        )
        from lucidate.report.site.gallery import gallery_of_run

        index = gallery_of_run(folder, reporter=reporter)
    card = RunCard.load(folder.card)
    result: dict[str, Any] = {
        "run": str(folder.path),
        "method": combine,
        "val_accuracy": card.results.val_accuracy,
        "test_accuracy": gain.accuracy,
        "members": [
            {"run": str(path), "name": name, "test_accuracy": accuracy, "share": share}
            for path, name, accuracy, share in zip(runs, gain.names, gain.accuracies, gain.shares, strict=True)
        ],
        "best_member_test_accuracy": gain.best_accuracy,
        "gain": gain.gain,
        "p": gain.p,
        "disagreement": gain.mean_disagreement,
        "pairwise_disagreement": jsonable(gain.disagreement),
        "both_wrong": jsonable(gain.both_wrong),
        "gallery": str(index),
    }
    lines = [
        f"{name:24}  test accuracy {a:.4f}  share {s:.2f}"
        for name, a, s in zip(gain.names, gain.accuracies, gain.shares, strict=True)
    ]
    text = "\n".join([*lines, gain.headline, f"run      {folder.path}", f"gallery  {index.resolve()}"])
    console.emit(result, text, as_json=json)
