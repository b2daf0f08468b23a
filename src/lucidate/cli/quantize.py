"""`lucidate quantize`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import Json, RunArgument
from lucidate.core.run import RunDir

if TYPE_CHECKING:
    from lucidate.export.quantize import Quantized

Budget = Annotated[
    float, typer.Option(metavar="POINTS", help="Accuracy that may be lost on validation, in percentage points.")
]
FLIPS = 10  # printed; quantize.json has all
LAYERS = 6  # of those left in float, printed


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
        widths = [
            max(len(text) for text in column) for column in zip(*((f.id, f.true, f.from_) for f in shown), strict=True)
        ]
        lines += [f"  {f.id:{widths[0]}}  {f.true:{widths[1]}}  {f.from_:{widths[2]}} → {f.to}" for f in shown]
    if len(done.flips) > FLIPS:
        lines.append(f"  … and {len(done.flips) - FLIPS:,} more, listed in {done.path.with_name('quantize.json')}")
    if done.flips and run.predictions("test").exists():
        lines.append(f"lucidate compare {run.path} {run.predictions('test-onnx-int8')} shows them")
    return "\n".join([*lines, str(done.path)])
