"""`lucidate explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lucidate.cli import console, stages
from lucidate.cli.options import Device, Json, RunArgument, Split
from lucidate.core.errors import LucidateError
from lucidate.core.records import jsonable
from lucidate.core.registry import choices

Which = Annotated[
    list[str] | None, typer.Option("--images", metavar="FILE|ID", help="Explain these alone; may be repeated.")
]
How = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="METHOD",
        help="gradcam, hirescam, layercam, gradcam++, eigencam, rollout, integrated-gradients or occlusion.",
    ),
]
What = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="predicted: why this class; true: what spoke for the right one; difference: why the one, not the other.",
    ),
]
LayerName = Annotated[
    str | None, typer.Option("--layer", metavar="NAME", help="The layer to look at. (default: chosen)")
]
NoTrust = Annotated[bool, typer.Option("--no-trust", help="Do not measure whether the maps deserve trust.")]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="With --images: where they go. (default: RUN/explain/images)")
]


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
    if images:
        target_folder = out or folder.explained / "images"
        found = explain_images(
            folder,
            images,
            out=target_folder,
            method=method,
            target=target,  # type: ignore[arg-type]
            layer=layer,
            device=stages.pick_device(device),
        )
        lines = []
        for one in found:
            against = f" rather than {one.against}" if one.against else ""
            empty = "; the map is empty" if one.peak == 0 else ""
            lines.append(f"{one.name}: {one.predicted} {one.confidence:.1%}{against}{empty}")
            lines += [f"  {picture}" for picture in (one.picture, *one.members.values())]
        console.emit({"run": str(run), "method": method, "images": jsonable(found)}, lines, as_json=json)
        return
    if out:
        raise LucidateError("--out: expected only with --images; heatmaps of a split go into the run")
    with console.reporter() as reporter, folder.lock():
        stages.predict_first(folder, split, reporter)
        explained = explain_run(
            folder,
            method=method,
            target=target,  # type: ignore[arg-type]
            split=split,
            layer=layer,
            trust=not no_trust,
            device=stages.pick_device(device),
            reporter=reporter,
        )
    names = list(explained.layer.values())
    result: dict[str, Any] = {
        "run": str(run),
        "method": method,
        "target": target,
        "split": split,
        "images": explained.images,
        "images_per_second": explained.images_per_second,
        "layer": names[0] if len(names) == 1 else explained.layer or None,
        "empty": explained.empty,
        "center": list(explained.center),
        "trust": jsonable(explained.trust) if explained.trust else None,
        "explain": str(folder.explained),
    }
    text = (
        f"{explained.images:,} heatmaps by {method}, {explained.images_per_second:,.0f} images/s, "
        f"{'layer ' + ', '.join(names) if names else 'no layer'}; {explained.empty:,} are empty"
    )
    if explained.trust:
        text += f"\n{explained.trust.verdict}"
    console.emit(result, f"{text}\n{folder.explained}", as_json=json)
