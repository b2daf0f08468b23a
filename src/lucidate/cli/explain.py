"""`lucidate explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from lucidate.cli import console, stages
from lucidate.cli.console import Device, Json, RunArgument, Split
from lucidate.core.errors import LucidateError
from lucidate.core.registry import choices

METHOD = "gradcam, hirescam, layercam, gradcam++, eigencam, rollout, integrated-gradients or occlusion."
TARGET = "predicted: why this class; true: what spoke for the right one; difference: why the one, not the other."
Which = Annotated[list[str] | None, Option("--images", metavar="FILE|ID", help="Explain these alone; may be repeated.")]
How = Annotated[str, Option("--method", metavar="METHOD", help=METHOD)]
What = Annotated[str, Option("--target", metavar="TARGET", help=TARGET)]
LayerName = Annotated[str | None, Option("--layer", metavar="NAME", help="The layer to look at. (default: chosen)")]
NoTrust = Annotated[bool, Option("--no-trust", help="Do not measure whether the maps deserve trust.")]
Out = Annotated[Path | None, Option(metavar="DIR", help="With --images: where they go. (default: RUN/explain/images)")]


def explain(
    run: RunArgument,
    images: Which = None,
    method: How = "gradcam",
    target: What = "predicted",
    layer: LayerName = None,
    split: Split = "test",
    no_trust: NoTrust = False,
    out: Out = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Show where a model looks, for a whole split or for single images, and say whether to trust it.

    Examples: lucidate explain runs/compact --method gradcam;
    lucidate explain models/cifar10-fastnet --images cat.jpg --target difference
    """
    folder = stages.open_run(run)
    from lucidate.explain.heatmaps import METHODS
    from lucidate.explain.of_run import TARGETS, explain_run
    from lucidate.explain.single import explain_images

    for name, value, known in (("--method", method, METHODS), ("--target", target, TARGETS)):
        if value not in known:
            raise LucidateError(f"{name}: expected {choices(value, list(known))}, received {value!r}")
    how: dict[str, Any] = {"method": method, "target": target, "layer": layer, "device": stages.pick_device(device)}
    if images:
        found = explain_images(folder, images, out=out or folder.explained / "images", **how)
        lines = []
        for one in found:
            against = f" rather than {one.against}" if one.against else ""
            empty = "; the map is empty" if one.peak == 0 else ""
            lines.append(f"{one.name}: {one.predicted} {one.confidence:.1%}{against}{empty}")
            lines += [f"  {picture}" for picture in (one.picture, *one.members.values())]
        console.emit({"run": str(run), "method": method, "images": found}, lines, as_json=json)
        return
    if out:
        raise LucidateError("--out: expected only with --images; heatmaps of a split go into the run")
    with console.reporter() as reporter, folder.lock():
        stages.predict_first(folder, split, reporter)
        explained = explain_run(folder, split=split, trust=not no_trust, reporter=reporter, **how)
    names = list(explained.layer.values())
    result: dict[str, Any] = {"run": str(run), "split": split, "explain": str(folder.explained)}
    for name in ("method", "target", "images", "images_per_second", "empty", "center", "trust"):
        result[name] = getattr(explained, name)
    result["layer"] = names[0] if len(names) == 1 else explained.layer or None
    text = (
        f"{explained.images:,} heatmaps by {method}, {explained.images_per_second:,.0f} images/s, "
        f"{'layer ' + ', '.join(names) if names else 'no layer'}; {explained.empty:,} are empty"
    )
    if explained.trust:
        text += f"\n{explained.trust.verdict}"
    console.emit(result, f"{text}\n{folder.explained}", as_json=json)
