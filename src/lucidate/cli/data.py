"""`lucidate data info|fetch|verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from lucidate.cli import console
from lucidate.cli.options import Json

app = typer.Typer(help="Look at, fetch and verify images.\n\nExample: lucidate data info photos/", no_args_is_help=True)
Source = Annotated[str, typer.Argument(metavar="SRC", help="digits, cifar10, or a path to images.")]
Size = Annotated[int | None, typer.Option(metavar="PIXELS", help="Side at which images are packed, 8 to 512.")]


@app.command()
def info(source: Source, image_size: Size = None, json: Json = False) -> None:
    """Pack a source and say what it holds: classes, images, splits, files set aside.

    Example: lucidate data info photos/
    """
    import numpy as np

    from lucidate.data.pack import open_pack

    with console.reporter() as reporter:
        pack = open_pack(source, image_size=image_size, reporter=reporter)
    counts = np.bincount(pack.labels, minlength=len(pack.class_names)).tolist()
    splits = {name or "undivided": int((pack.given == name).sum()) for name in np.unique(pack.given).tolist()}
    set_aside = [{"path": item.path, "reason": item.reason} for item in pack.set_aside]
    result = {
        "dataset": pack.dataset,
        "images": len(pack),
        "image_size": pack.image_size,
        "classes": dict(zip(pack.class_names, counts, strict=True)),
        "splits": splits,
        "flips": pack.flips,
        "set_aside": set_aside,
        "hash": pack.hash,
        "pack": str(pack.path),
    }
    lines = [
        f"{pack.dataset}: {len(pack):,} images of {pack.image_size}×{pack.image_size} pixels, "
        + ", ".join(f"{count:,} {name}" for name, count in splits.items()),
        *(f"  {name}: {count:,}" for name, count in zip(pack.class_names, counts, strict=True)),
        *([f"{len(set_aside)} set aside:"] if set_aside else []),
        *(f"  {item['path']}: {item['reason']}" for item in set_aside),
        f"packed in {pack.path}",
    ]
    console.emit(result, lines, as_json=json)


@app.command()
def fetch(source: Source, json: Json = False) -> None:
    """Make sure that a source is here; cifar10 is downloaded if need be, its archive's checksum compared.

    Example: lucidate data fetch cifar10
    """
    from lucidate.data.sources.find import fetch_source

    with console.reporter() as reporter:
        path = fetch_source(source, reporter=reporter)
    text = str(path) if path else f"{source} is embedded: there is nothing to fetch"
    console.emit({"source": source, "path": str(path) if path else None}, text, as_json=json)


@app.command()
def verify(source: Source, json: Json = False) -> None:
    """Read every image of a source, compare checksums where there are any, and those of its packs on this machine.

    Example: lucidate data verify photos/
    """
    from lucidate.core.errors import ChecksumError
    from lucidate.data.packed import UNSEALED, check_packs
    from lucidate.data.sources.find import verify_source

    with console.reporter() as reporter:
        report = verify_source(source, reporter=reporter)
    set_aside, packs = report["set_aside"], check_packs(report["fingerprint"])
    official = {True: ", the official archive", False: ", not the official archive", None: ""}[report["official"]]
    lines = [f"{report['dataset']}: {report['images']:,} images readable, {len(set_aside)} not{official}"]
    lines += [f"  {item['path']}: {item['reason']}" for item in set_aside]
    lines += [f"packed in {pack.path}: {pack.fault or 'as it was made'}" for pack in packs]
    listed = [{"path": str(pack.path), "side": pack.side, "fault": pack.fault} for pack in packs]
    console.emit({**report, "packs": listed}, lines, as_json=json)
    for pack in packs:
        if pack.fault not in (None, UNSEALED):
            raise ChecksumError(
                f"data: expected the pack {pack.path} as it was made, received one of which {pack.fault}; it is packed "
                f"anew by: lucidate data info {source} --image-size {pack.side}"
            )
