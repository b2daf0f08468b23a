"""`lucidate compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import Json
from lucidate.core.errors import LucidateError
from lucidate.core.progress import Reporter
from lucidate.core.records import Predictions, RunCard, slug
from lucidate.core.registry import MODEL_FILES
from lucidate.core.run import RunDir, fresh_path

if TYPE_CHECKING:
    from lucidate.analysis.comparison import Comparison
    from lucidate.data.pack import Pack

A = Annotated[
    Path, typer.Argument(metavar="A", help="A run folder, a model's file, or a predictions table that lucidate wrote.")
]
B = Annotated[Path, typer.Argument(metavar="B", help="The run or table to compare it with.")]
Split = Annotated[
    str | None, typer.Option(metavar="SPLIT", help="Of a run: train, validation or test. (default: test)")
]
Images = Annotated[str | None, typer.Option(metavar="SRC", help="The images that two tables speak of, for the page.")]
Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the page goes. (default: runs/compare-A-B)")]
CLASSES = 10  # printed; the table on the page and --json have all


@dataclass(frozen=True)
class Model:
    """One of the two. run: None for a table."""

    path: Path
    predictions: Predictions
    run: RunDir | None

    @property
    def card(self) -> RunCard | None:
        return RunCard.load(self.run.card) if self.run else None


def compare(
    a: A,
    b: B,
    split: Split = None,
    images: Images = None,
    out: Folder = None,
    json: Json = False,
) -> None:
    """Compare two models on the same images: accuracies, flips both ways, McNemar, classes, the images that flipped.

    Example: lucidate compare runs/compact runs/fast
    """
    first, second = _open("A", a, split), _open("B", b, split)
    tables = first.card is None and second.card is None
    if split and tables:
        raise LucidateError("--split: expected only with a run, received two tables; a table holds one split")
    if images and not tables:
        raise LucidateError("--images: expected only with two tables, received a run, which has its own images")
    if out is not None and tables and not images:
        raise LucidateError(
            "--out: expected --images SRC too, received two tables, which lack the images that the page shows"
        )
    if out is not None:
        RunDir.free(out)
    from lucidate.analysis.comparison import compare as compare_predictions

    compared = compare_predictions(first.predictions, second.predictions, names=_names(first, second))
    index = None
    with console.reporter() as reporter:
        if pack := _pack(first, second, images, reporter):
            from lucidate.report.site.comparison import build_comparison, describe

            folder = out or fresh_path(Path("runs"), f"compare-{'-'.join(slug(name) for name in compared.names)}")
            about = describe(first.card), describe(second.card)
            index = build_comparison(folder, compared, pack, about=about, reporter=reporter)
    page = str(index.resolve()) if index else "No page: two tables have no images; --images SRC names them."
    console.emit(_result(compared, index), [*_text(compared), "", page], as_json=json)


def _open(name: str, path: Path, split: str | None) -> Model:
    """What an argument names. Raises LucidateError where it is neither a run nor a table."""
    if path.is_dir() or path.suffix.lower() in MODEL_FILES:
        from lucidate.analysis.findings import predictions_of

        run = stages.open_run(path)
        with console.reporter() as reporter, run.lock():
            stages.predict_first(run, split or "test", reporter)
        return Model(path, predictions_of(run, split or "test"), run)
    if not path.exists():
        raise LucidateError(f"{name}: expected a run folder or a predictions table, received {path}, which is neither")
    return Model(path, Predictions.load(path), None)


def _names(first: Model, second: Model) -> tuple[str, str]:
    """What to call the two: their folders or files, with all of their paths where these are alike."""
    short = tuple(_name(model.path.resolve()) for model in (first, second))
    return (short[0], short[1]) if short[0] != short[1] else (str(first.path), str(second.path))


def _name(path: Path) -> str:
    inside = path.parent.name == "predictions" and (path.parent.parent / "run.json").exists()
    return path.parent.parent.name if inside else path.stem if path.suffix == ".parquet" else path.name


def _pack(first: Model, second: Model, images: str | None, reporter: Reporter) -> Pack | None:
    """The images: those of A's run, else of B's, else those that --images names, else none."""
    if run := first.run or second.run:
        from lucidate.data.run_data import open_data

        return open_data(run, reporter=reporter).pack
    if images is None:
        return None
    from lucidate.data.pack import open_pack

    return open_pack(images, reporter=reporter)


def _result(compared: Comparison, index: Path | None) -> dict[str, Any]:
    """The object that `--json` prints."""
    columns = ["class", "accuracy_a", "accuracy_b", "change"]
    return {
        "accuracy_a": compared.first.accuracy,
        "accuracy_b": compared.second.accuracy,
        "difference": compared.difference,
        "difference_low": compared.low,
        "difference_high": compared.high,
        "fixed": len(compared.fixed),
        "broken": len(compared.broken),
        "mcnemar_p": compared.mcnemar_p,
        "images": compared.images,
        "per_class": compared.classes.frame()[columns].to_dict("records"),
        "page": str(index) if index else None,
    }


def _text(compared: Comparison) -> list[str]:
    """A short block for people: the finding, both models, the flips, the classes that changed most."""
    from lucidate.analysis.formatting import count, interval, percent, points, points_interval

    sides = (("A", compared.first), ("B", compared.second))
    width = max(len(side.name) for _, side in sides)
    lines = [compared.headline, ""]
    lines += [
        f"{letter}  {side.name:{width}}  {percent(side.accuracy):>7}  {interval(side.low, side.high)}"
        for letter, side in sides
    ]
    for name, left in zip(compared.names, compared.left_out, strict=True):
        lines += [f"{count(left, 'image')} only in {name}, left out"] if left else []
    lines += ["", f"{len(compared.fixed):>7,}  fixed: wrong in A, right in B"]
    lines += [f"{len(compared.broken):>7,}  broken: right in A, wrong in B"]
    lines += [f"{compared.changed_wrong:>7,}  wrong in both, with another answer", ""]
    classes = compared.classes
    shown = [k for k in classes.order[:CLASSES].tolist() if classes.total[k]]
    width = max(len(classes.class_names[k]) for k in shown)
    for k in shown:
        shares = f"{percent(classes.accuracy_a[k]):>7} → {percent(classes.accuracy_b[k]):>7}"
        change = f"{points(classes.change[k]):>12}  {points_interval(classes.low[k], classes.high[k])}"
        lines.append(f"{classes.class_names[k]:{width}}  {shares}  {change}")
    if len(classes.class_names) > len(shown):
        lines.append(f"… and {len(classes.class_names) - len(shown):,} more, which changed less (--json lists all)")
    return lines
