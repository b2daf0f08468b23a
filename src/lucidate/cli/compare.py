"""`lucidate compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from lucidate.cli import console, stages
from lucidate.cli.console import Json
from lucidate.core.errors import LucidateError
from lucidate.core.records import Predictions, RunCard, slug
from lucidate.core.registry import MODEL_FILES
from lucidate.core.run import RunDir, fresh_path

if TYPE_CHECKING:
    from lucidate.analysis.comparison import Comparison

A = Annotated[
    Path, Argument(metavar="A", help="A run folder, a model's file, or a predictions table that lucidate wrote.")
]
B = Annotated[Path, Argument(metavar="B", help="The run or table to compare it with.")]
Split = Annotated[str | None, Option(metavar="SPLIT", help="Of a run: train, validation or test. (default: test)")]
Images = Annotated[str | None, Option(metavar="SRC", help="The images that two tables speak of, for the page.")]
Folder = Annotated[Path | None, Option(metavar="DIR", help="Where the page goes. (default: runs/compare-A-B)")]
CLASSES = 10  # printed; the table on the page and --json have all


def compare(a: A, b: B, split: Split = None, images: Images = None, out: Folder = None, json: Json = False) -> None:
    """Compare two models on the same images: accuracies, flips both ways, McNemar, classes, the images that flipped.

    Example: lucidate compare runs/compact runs/fast
    """
    (first, first_run), (second, second_run) = _open("A", a, split), _open("B", b, split)
    run = first_run or second_run  # whose images are shown
    if split and not run:
        raise LucidateError("--split: expected only with a run, received two tables; a table holds one split")
    if images and run:
        raise LucidateError("--images: expected only with two tables, received a run, which has its own images")
    if out is not None and not run and not images:
        raise LucidateError(
            "--out: expected --images SRC too, received two tables, which lack the images that the page shows"
        )
    if out is not None:
        RunDir.free(out)
    from lucidate.analysis.comparison import compare as compare_predictions

    names = _name(a.resolve()), _name(b.resolve())
    compared = compare_predictions(first, second, names=names if names[0] != names[1] else (str(a), str(b)))
    index = None
    if run or images:
        from lucidate.data.pack import open_pack
        from lucidate.data.splits import open_data
        from lucidate.report.site.comparison import build_comparison, describe

        with console.reporter() as reporter:
            pack = open_data(run, reporter=reporter).pack if run else open_pack(images or "", reporter=reporter)
            folder = out or fresh_path(Path("runs"), f"compare-{'-'.join(slug(name) for name in compared.names)}")
            cards = [RunCard.load(each.card) if each else None for each in (first_run, second_run)]
            about = describe(cards[0]), describe(cards[1])
            index = build_comparison(folder, compared, pack, about=about, reporter=reporter)
    result = {
        "accuracy_a": compared.first.accuracy,
        "accuracy_b": compared.second.accuracy,
        **{name: getattr(compared, name) for name in ("difference", "mcnemar_p", "images")},
        "difference_low": compared.low,
        "difference_high": compared.high,
        "fixed": len(compared.fixed),
        "broken": len(compared.broken),
        "per_class": compared.classes.frame()[["class", "accuracy_a", "accuracy_b", "change"]].to_dict("records"),
        "page": str(index) if index else None,
    }
    page = str(index.resolve()) if index else "No page: two tables have no images; --images SRC names them."
    console.emit(result, [*_text(compared), "", page], as_json=json)


def _open(name: str, path: Path, split: str | None) -> tuple[Predictions, RunDir | None]:
    """The predictions that an argument names, and their run; None for a table. Raises LucidateError for neither."""
    if path.is_dir() or path.suffix.lower() in MODEL_FILES:
        from lucidate.analysis.findings import predictions_of

        run = stages.open_run(path)
        with console.reporter() as reporter, run.lock():
            stages.predict_first(run, split or "test", reporter)
        return predictions_of(run, split or "test"), run
    if not path.exists():
        raise LucidateError(f"{name}: expected a run folder or a predictions table, received {path}, which is neither")
    return Predictions.load(path), None


def _name(path: Path) -> str:
    """What to call a run or a table: its folder or file; a table in a run's folder as the run."""
    inside = path.parent.name == "predictions" and (path.parent.parent / "run.json").exists()
    return path.parent.parent.name if inside else path.stem if path.suffix == ".parquet" else path.name


def _text(compared: Comparison) -> list[str]:
    """A short block for people: the finding, both models, the flips, the classes that changed most."""
    from lucidate.analysis.formatting import count, interval, percent, points, points_interval

    sides = (("A", compared.first), ("B", compared.second))
    width = max(len(side.name) for _, side in sides)
    lines = [compared.headline, ""]
    for letter, side in sides:
        accuracy = f"{percent(side.accuracy):>7}  {interval(side.low, side.high)}"
        lines.append(f"{letter}  {side.name:{width}}  {accuracy}")
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
