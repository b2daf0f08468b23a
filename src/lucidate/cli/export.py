"""`lucidate export` and `lucidate quantize`: a model in another form."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from lucidate.cli import console, stages
from lucidate.cli.console import Json, RunArgument
from lucidate.core.errors import LucidateError
from lucidate.core.registry import choices
from lucidate.core.run import RunDir

if TYPE_CHECKING:
    from lucidate.export.quantize import Quantized

Form = Annotated[str, Option("--format", metavar="FORMAT", help="onnx, keras or torch.")]
How = Annotated[
    str, Option(metavar="VIEWS", help="recipe: the recipe's test-time views inside; one: without them, quicker.")
]
Out = Annotated[Path | None, Option(metavar="FILE", help="Where the file goes. (default: RUN/export/model.*)")]
Budget = Annotated[
    float, Option(metavar="POINTS", help="Accuracy that may be lost on validation, in percentage points.")
]
FLIPS = 10  # printed; quantize.json has all
LAYERS = 6  # of those left in float, printed


def export(run: RunArgument, form: Form = "onnx", views: How = "recipe", out: Out = None, json: Json = False) -> None:
    """Write a model in a form that runs without lucidate, proven on every test image to answer as the original.

    onnx: pixels of any size in, everything else inside. keras: stock layers, of compact and fastnet, one view. torch: a
    torch.export program.

    Examples: lucidate export models/cifar10-fastnet --format onnx;
    lucidate export runs/compact --format keras --out compact.keras
    """
    if views not in ("recipe", "one"):
        raise LucidateError(f"--views: expected {choices(views, ['recipe', 'one'])}, received {views!r}")
    folder = stages.open_run(run)
    from lucidate.export.exporter import export_run

    with console.reporter() as reporter, nullcontext() if out else folder.lock():
        done = export_run(folder, form, views="one" if views == "one" else None, out=out, reporter=reporter)
    parity = done.parity
    result = {
        "run": str(run),
        "path": str(done.path),
        **{name: getattr(done, name) for name in ("format", "bytes", "views", "reference", "latency_ms")},
        **{name: getattr(parity, name) for name in ("images", "split", "max_abs_diff", "disagreements", "ties")},
        "tolerance": parity.tolerance,
        "note": done.note or None,
    }
    others = f"{parity.disagreements:,} other predictions" if parity.disagreements else "no other prediction"
    alone, many = done.latency_ms["1"], done.latency_ms["32"]
    lines = [
        f"{done.bytes / 1e6:.1f} MB, the same model: on {parity.images:,} {parity.split} images no probability differs "
        f"by more than {parity.max_abs_diff:.1e}, {others}",
        f"{alone:.2f} ms for one image, {many:.0f} ms for 32; views inside: {done.views}",
        *([done.note] if done.note else []),
        str(done.path),
    ]
    console.emit(result, "\n".join(lines), as_json=json)


def quantize(run: RunArgument, budget: Budget = 0.3, json: Json = False) -> None:
    """Bring a model to int8: a quarter of the bytes, and faster; says what it costs in accuracy, image by image.

    Ranges and layers are chosen on validation images; the test images judge once. Writes RUN/export/model.int8.onnx and
    quantize.json beside it.

    Example: lucidate quantize runs/compact
    """
    folder = stages.open_run(run)
    from lucidate.export.quantize import quantize_run, summary

    with console.reporter() as reporter, folder.lock():
        done = quantize_run(folder, budget=budget, reporter=reporter)
        if not done.within_budget:
            reporter.say(
                f"warning: {-done.validation['change']:.2f} points lost on validation, beyond the budget of "
                f"{budget:g}; this is the form that loses least"
            )
    console.emit({"run": str(run), **summary(done)}, _text(folder, done), as_json=json)


def _text(run: RunDir, done: Quantized) -> str:
    """A short block for people: what it costs, what it gains, which images flipped."""
    from lucidate.analysis.formatting import count, p_value, percent

    low, high = done.interval
    kept = [*done.always_float, *done.left_in_float]
    names = ", ".join(kept[:LAYERS]) + (f" and {len(kept) - LAYERS} more" if len(kept) > LAYERS else "")
    small, large = done.latency_ms["int8"]["32"], done.latency_ms["fp32"]["32"]
    bytes_ratio, one = done.bytes_int8 / done.bytes_fp32, done.speedup(1)
    lines = [
        f"{percent(done.accuracy_fp32)} → {percent(done.accuracy_int8)} of {done.images:,} {done.split} images: "
        f"{done.change:+.2f} points, 95 % CI {low:+.2f} to {high:+.2f}, McNemar {p_value(done.p)}",
        f"{done.bytes_fp32 / 1e6:.2f} → {done.bytes_int8 / 1e6:.2f} MB ({bytes_ratio:.2f} ×); "
        f"32 images in {small:.1f} ms instead of {large:.1f} ({done.speedup():.1f} × as fast; a single one {one:.1f} ×)"
        + ("" if done.hardware["vnni"] else "; this processor has no VNNI, with which int8 is faster"),
        f"{count(done.layers, 'layer')} in int8, {done.method}; in float: {names or 'none'}",
        f"{count(len(done.flips), 'prediction')} changed: {done.right_to_wrong:,} right → wrong, "
        f"{done.wrong_to_right:,} wrong → right",
    ]
    if shown := done.flips[:FLIPS]:
        columns = zip(*((flip.id, flip.true, flip.from_) for flip in shown), strict=True)
        widths = [max(map(len, column)) for column in columns]
        lines += [f"  {f.id:{widths[0]}}  {f.true:{widths[1]}}  {f.from_:{widths[2]}} → {f.to}" for f in shown]
    if len(done.flips) > FLIPS:
        lines.append(f"  … and {len(done.flips) - FLIPS:,} more, listed in {done.path.with_name('quantize.json')}")
    if done.flips and run.predictions("test").exists():
        lines.append(f"lucidate compare {run.path} {run.predictions('test-onnx-int8')} shows them")
    return "\n".join([*lines, str(done.path)])
