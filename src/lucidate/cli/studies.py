"""What takes several runs: `lucidate levels`, `distill`, `ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lucidate.cli import console, stages
from lucidate.cli.console import Device, Json, Out, Set, ShownImages
from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard, jsonable
from lucidate.core.run import RunDir, fresh_path

Source = Annotated[str, typer.Option(metavar="SRC", help="digits, cifar10, or a path to images.")]
Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The runs; the same DIR goes on. (default: runs/levels or the next free)"),
]
Teacher = Annotated[
    Path, typer.Option("--teacher", metavar="RUN", help="Who teaches: a run, or the file of a model from elsewhere.")
]
Student = Annotated[
    str, typer.Option("--recipe", metavar="RECIPE", help="The student: a TOML file, or the name of a shipped recipe.")
]
TeachersSource = Annotated[
    str | None, typer.Option(metavar="SRC", help="digits, cifar10, or a path to images. (default: the teacher's)")
]
DistillFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The runs; the same DIR goes on. (default: runs/distill or the next free)"),
]
Seeds = Annotated[
    int, typer.Option(metavar="N", help="Students of each kind, by the recipe's seed and those after it.")
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Finished runs on the same images and split.")]
How = Annotated[
    str,
    typer.Option(
        metavar="METHOD",
        help="softmax: the mean of probabilities; logits: of logits; weighted: shares fitted on validation; "
        "greedy: members selected on validation.",
    ),
]

Minutes = Annotated[
    float | None,
    typer.Option(metavar="N", help="A budget that the levels divide among them. (default: the recipes' epochs)"),
]


def levels(
    data: Source = "cifar10",
    out: Folder = None,
    minutes: Minutes = None,
    images: ShownImages = True,
    set_: Set = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Take a data set through the challenge: transfer, regularization, a custom network, an ensemble; then write it up.

    What was stopped goes on with the same command and --out: finished levels are not repeated. --set
    levels.train_size=5000 trains on fewer images, --set train.epochs=2 for fewer epochs, --set data.split=official
    keeps the source's own test split.

    Example: lucidate levels --data cifar10 --minutes 30 --out runs/levels
    """
    chosen = stages.pick_device(device)
    from lucidate.analysis.formatting import points  # loads pandas
    from lucidate.studies.levels import run_levels

    with stages.study("levels", out) as (folder, reporter, stop):
        result = run_levels(
            data,
            folder,
            overrides=[*(set_ or []), *([] if minutes is None else [f"levels.minutes={minutes:g}"])],
            device=chosen,
            command=stages.command_line(),
            images=images,
            reporter=reporter,
            stop=stop,
        )
    rows = [
        [
            f"{level.level} {level.title}" if position == 0 else "  member",
            row.model,
            row.origin,
            f"{row.parameters:,}",
            f"{row.val_accuracy:.4f}",
            f"{row.test_accuracy:.4f} ({row.test_low:.3f}–{row.test_high:.3f})",
            "" if row.change is None else points(row.change),
            "" if row.p is None else f"{row.p:.2g}",
            f"{row.seconds / 60:.1f}",
            f"{row.images_per_second:,.0f}" if row.images_per_second else "",
        ]
        for level in result.table.levels
        for position, row in enumerate((level, *level.members))
    ]
    numbers = ("parameters", "validation", "test (95 % CI)", "change", "p", "minutes", "images/s")
    printed = console.table(("level", "model", "weights", *numbers), rows, right=numbers)
    pages = [str(result.gallery.resolve()), str(result.report)]
    answer = {
        "levels": result.table.levels,
        "notes": result.table.notes,
        "gallery": str(result.gallery),
        "report": str(result.report),
        "out": str(folder),
    }
    console.emit(answer, "\n".join([printed, result.table.headline, *result.table.notes, *pages]), as_json=json)


def distill(
    teacher: Teacher,
    recipe: Student = "edge",
    data: TeachersSource = None,
    out: DistillFolder = None,
    seeds: Seeds = 3,
    set_: Set = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a small model by a trained one's answers, and the same alone; compare accuracy, size and speed.

    Students see the teacher's training images in its division, unless --data and --set data.KEY=VALUE say otherwise;
    --set distill.temperature=T and --set distill.weight=W change how they are taught. What was stopped goes on with
    the same command and --out.

    Example: lucidate distill --teacher models/cifar10-fastnet --recipe edge --data FOLDER --set data.train_size=10000
    """
    run, chosen = stages.open_run(teacher), stages.pick_device(device)
    from lucidate.analysis.studies import HEADINGS, RIGHT
    from lucidate.studies.distill import RESULT, TABLE, distill_run

    with stages.study("distill", out) as (folder, reporter, stop):
        table = distill_run(
            run,
            recipe,
            folder,
            seeds=seeds,
            source=data,
            overrides=set_ or [],
            device=chosen,
            command=stages.command_line(),
            reporter=reporter,
            stop=stop,
        )
    answer = {"teacher": str(teacher), "gain": table.gain, "p": table.p, **jsonable(table), "headline": table.headline}
    answer |= {"table": str(folder / TABLE), "result": str(folder / RESULT), "out": str(folder)}
    printed = console.table(HEADINGS, (row.cells() for row in table.rows), right=RIGHT)
    lines = [printed, "", *table.arrows(), "", table.headline, *table.notes, str(folder / TABLE)]
    console.emit(answer, "\n".join(lines), as_json=json)


def ensemble(
    runs: Runs, out: Out = None, combine: How = "softmax", device: Device = "auto", json: Json = False
) -> None:
    """Combine runs into one, which can be predicted, shown and compared like any other.

    Example: lucidate ensemble runs/resnet50 runs/vit_tiny runs/fastnet --out runs/ensemble
    """
    members = [stages.open_run(path) for path in runs]
    folder = RunDir.free(out or fresh_path(Path("runs"), "ensemble"))
    from lucidate.studies.ensemble import METHODS, ensemble_runs

    if combine not in METHODS:
        raise LucidateError(f"--combine: expected one of {', '.join(METHODS)}, received {combine!r}")
    with console.reporter() as reporter, folder.claim():
        gain = ensemble_runs(
            members,
            folder,
            method=combine,
            device=stages.pick_device(device),
            command=stages.command_line(),
            reporter=reporter,
        )
        from lucidate.report.site.gallery import gallery_of_run

        index = gallery_of_run(folder, reporter=reporter)
    answers = list(zip(runs, gain.names, gain.accuracies, gain.shares, strict=True))
    shares = [
        {"run": str(path), "name": name, "test_accuracy": accuracy, "share": share}
        for path, name, accuracy, share in answers
    ]
    result: dict[str, Any] = {"run": str(folder.path), "method": combine, "gallery": str(index)}
    result |= {"val_accuracy": RunCard.load(folder.card).results.val_accuracy, "test_accuracy": gain.accuracy}
    result |= {"members": shares, "best_member_test_accuracy": gain.best_accuracy, "gain": gain.gain, "p": gain.p}
    result |= {"disagreement": gain.mean_disagreement, "pairwise_disagreement": gain.disagreement}
    result |= {"both_wrong": gain.both_wrong}
    lines = [f"{name:24}  test accuracy {accuracy:.4f}  share {share:.2f}" for _, name, accuracy, share in answers]
    text = "\n".join([*lines, gain.headline, f"run      {folder.path}", f"gallery  {index.resolve()}"])
    console.emit(result, text, as_json=json)
