"""What there is: `lucidate data info|fetch|verify`, `lucidate runs`, `lucidate models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from lucidate.cli import console
from lucidate.cli.console import Json, Size
from lucidate.core.errors import ChecksumError, LucidateError
from lucidate.core.records import RunCard

data = Typer(help="Look at, fetch and verify images.\n\nExample: lucidate data info photos/", no_args_is_help=True)
Source = Annotated[str, Argument(metavar="SRC", help="digits, cifar10, or a path to images.")]
Folder = Annotated[Path, Argument(metavar="DIR", help="A folder of runs.")]
Pattern = Annotated[str | None, Option(metavar="PATTERN", help="List timm's names that match, such as resnet*.")]


@data.command()
def info(source: Source, image_size: Size = None, json: Json = False) -> None:
    """Pack a source and say what it holds: classes, images, splits, files set aside.

    Example: lucidate data info photos/
    """
    import numpy as np

    from lucidate.data.pack import open_pack

    with console.reporter() as reporter:
        pack = open_pack(source, image_size=image_size, reporter=reporter)
    counts = np.bincount(pack.labels, minlength=len(pack.class_names)).tolist()
    classes = dict(zip(pack.class_names, counts, strict=True))
    splits = {name or "undivided": int((pack.given == name).sum()) for name in np.unique(pack.given).tolist()}
    result: dict[str, Any] = {"images": len(pack), "classes": classes, "splits": splits, "pack": str(pack.path)}
    result |= {name: getattr(pack, name) for name in ("dataset", "image_size", "flips", "set_aside", "hash")}
    lines = [
        f"{pack.dataset}: {len(pack):,} images of {pack.image_size}×{pack.image_size} pixels, "
        + ", ".join(f"{count:,} {name}" for name, count in splits.items()),
        *(f"  {name}: {count:,}" for name, count in classes.items()),
        *([f"{len(pack.set_aside)} set aside:"] if pack.set_aside else []),
        *(f"  {item.path}: {item.reason}" for item in pack.set_aside),
        f"packed in {pack.path}",
    ]
    console.emit(result, lines, as_json=json)


@data.command()
def fetch(source: Source, json: Json = False) -> None:
    """Make sure that a source is here; cifar10 is downloaded if need be, its archive's checksum compared.

    Example: lucidate data fetch cifar10
    """
    from lucidate.data.sources.find import fetch_source

    with console.reporter() as reporter:
        path = fetch_source(source, reporter=reporter)
    text = str(path) if path else f"{source} is embedded: there is nothing to fetch"
    console.emit({"source": source, "path": str(path) if path else None}, text, as_json=json)


@data.command()
def verify(source: Source, json: Json = False) -> None:
    """Read every image of a source, compare checksums where there are any, and those of its packs on this machine.

    Example: lucidate data verify photos/
    """
    from lucidate.data.packed import UNSEALED, check_packs
    from lucidate.data.sources.find import verify_source

    with console.reporter() as reporter:
        report = verify_source(source, reporter=reporter)
    set_aside, packs = report["set_aside"], check_packs(report["fingerprint"])
    official = {True: ", the official archive", False: ", not the official archive", None: ""}[report["official"]]
    lines = [f"{report['dataset']}: {report['images']:,} images readable, {len(set_aside)} not{official}"]
    lines += [f"  {item['path']}: {item['reason']}" for item in set_aside]
    lines += [f"packed in {path}: {fault or 'as it was made'}" for path, _, fault in packs]
    listed = [{"path": str(path), "side": side, "fault": fault} for path, side, fault in packs]
    console.emit({**report, "packs": listed}, lines, as_json=json)
    for path, side, fault in packs:
        if fault not in (None, UNSEALED):
            raise ChecksumError(
                f"data: expected the pack {path} as it was made, received one of which {fault}; it is packed anew by: "
                f"lucidate data info {source} --image-size {side}"
            )


def runs(folder: Folder = Path("runs"), json: Json = False) -> None:
    """List the runs in a folder: data, model, accuracies, when they were made; the newest last.

    Example: lucidate runs
    """
    if not folder.is_dir():
        raise LucidateError(
            f"runs: expected a folder of runs, but there is no {folder}; make a run with: lucidate run digits"
        )
    found: list[dict[str, Any]] = []
    unreadable = []
    for path in sorted(folder.rglob("run.json")):
        try:
            card = RunCard.load(path)
        except LucidateError as error:
            unreadable.append(str(error))
            continue
        row = {"run": str(path.parent), "data": card.data.dataset, "model": card.model.name, "status": card.status}
        results = {name: getattr(card.results, name) for name in ("val_accuracy", "test_accuracy")}
        found.append({**row, **results, "created": card.created})
    found.sort(key=lambda row: row["created"])
    rows = []
    for *words, validation, test, created in (row.values() for row in found):
        accuracies = ("" if value is None else f"{value:.4f}" for value in (validation, test))
        rows.append([*words, *accuracies, created[:16]])
    headings = ("run", "data", "model", "status", "validation", "test", "made")
    text = console.table(headings, rows, right=("validation", "test"))
    text = text if found else f"no run in {folder}; make one with: lucidate run digits"
    console.emit({"runs": found, "unreadable": unreadable}, [*text.splitlines(), *unreadable], as_json=json)


def models(timm: Pattern = None, json: Json = False) -> None:
    """List the models that a recipe can name, with their options and defaults.

    Example: lucidate models --timm "vit_tiny*"
    """
    from lucidate.models import build  # noqa: F401  which registers them
    from lucidate.models.registry import models as registry

    if timm is not None:
        from lucidate.models.timm import names

        found = names(timm)
        console.emit({"models": found}, "\n".join(found) or f"timm has no model like {timm!r}", as_json=json)
        return
    known = {name: registry.options(name) for name in registry}
    lines = []
    for name, options in known.items():
        summary = (registry[name].__doc__ or "").splitlines()[0]
        lines += [f"{name}: {summary}", *(f"  {option} = {default!r}" for option, default in options.items())]
    lines.append("timm:NAME: any model of timm; lucidate models --timm PATTERN lists them")
    console.emit({"models": known}, "\n".join(lines), as_json=json)
