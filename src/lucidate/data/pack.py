"""Any source → one packed store of pixels, memory-mapped, made once and found again by its content.

    <cache>/packs/<dataset>-<key>/
        images.npy      uint8 (N, side, side, 3)
        labels.npy      int64 (N,)
        index.parquet   id, given
        meta.json       side, count, and the images set aside with their reasons
        checksums.json  of these files, by piece; compared when a touched pack is opened, and by data verify
    <cache>/packs/<dataset>-<fingerprint>.agreed   the side of the images' own in which all agree, 0: they do not

What depends on where the images lie (spec, class names, other files beside them) comes from the source each time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lucidate.core.atomic import atomic_path, atomic_write, remove_abandoned
from lucidate.core.errors import SourceError
from lucidate.core.progress import Reporter, Silent, with_progress
from lucidate.data.decode import DecodeError, decode, image_size, resize
from lucidate.data.download import cache_dir, cache_error, one_process
from lucidate.data.packed import (
    LARGEST_SIDE,
    PACK_VERSION,
    SMALLEST_SIDE,
    UNSEALED,
    PackedImages,
    fault,
    find_pack,
    pack_key,
    read_pack,
    seal,
)
from lucidate.data.sources.find import find_source, open_source, recall, remember, signature
from lucidate.data.sources.source import Content, SetAside, Source, in_order, read_image

LARGEST_OWN = 96  # pixels; up to here images that agree in size keep it
COMMON_SIDE = 64  # pixels; what all others are resized to unless a size is asked for
COMMON_SMALL = 32  # pixels; what images that agree in fewer than 8 are resized to


@dataclass(frozen=True, eq=False, kw_only=True)
class Pack(PackedImages):
    """Packed images and what their source says of them. hash: of content and size, equal wherever the images lie."""

    path: Path
    class_names: tuple[str, ...]
    dataset: str
    source: str
    hash: str
    flips: bool

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        """Side in pixels."""
        return int(self.images.shape[1])


def open_pack(
    spec: str | Path,
    *,
    image_size: int | None = None,
    common: int = COMMON_SIDE,
    cache: Path | None = None,
    reporter: Reporter | None = None,
) -> Pack:
    """The packed images of a source, packed now if they are not yet.

    image_size: side in pixels, 8 to 512; None keeps the images' own where all are square, agree and are 8 to 96, takes
    32 where they agree in less, else `common`. cache: default `cache_dir()`. A pack that differs from its checksums, or
    has none, is made anew. Raises SourceError for a source that cannot be opened, a class without a readable image, or
    a cache that cannot be written to.
    """
    if image_size is not None and not SMALLEST_SIDE <= image_size <= LARGEST_SIDE:
        raise SourceError(
            f"image_size: expected a side from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels, received {image_size}"
        )
    reporter = reporter or Silent()
    packs = (cache or cache_dir()) / "packs"
    unchanged = signature(find_source(spec))
    known = recall(spec, unchanged)
    agreed = None if known is None else _noted_agreement(known, packs)
    if known is not None and (image_size or agreed is not None):
        side = image_size or _side_of(agreed or 0, common)
        key = pack_key(known.fingerprint, side=side)
        folder = find_pack(packs, key, dataset=known.dataset)
        if pack := _load(folder, known, side=side, key=key):
            return pack
    source = open_source(spec, reporter=reporter)
    remember(spec, unchanged, source)
    side = image_size or _side_of(_agreement(source, packs, reporter), common)
    key = pack_key(source.fingerprint, side=side)
    folder = find_pack(packs, key, dataset=source.dataset)
    for _ in range(3):  # between building and opening, another process may swap the folder for its own
        if pack := _load(folder, source, side=side, key=key):
            return pack
        try:
            with one_process(folder, reporter, doing="packs"):
                if not _load(folder, source, side=side, key=key):  # another process may just have made it
                    if (found := fault(folder)) != UNSEALED:
                        reporter.say(f"{folder}: {found or 'it is not whole'}; packing it anew")
                    _build(folder, source, side=side, key=key, reporter=reporter)
        except OSError as error:
            raise cache_error(packs.parent, error) from None
    raise SourceError(
        f"cache: expected {folder} to stay in place, but something keeps changing it; try again, or set LUCIDATE_CACHE "
        "to another folder"
    )


def _side_of(agreed: int, common: int) -> int:
    """The side at which images are packed that agree in one, or (0) do not."""
    if not agreed:
        return common
    return agreed if agreed >= SMALLEST_SIDE else COMMON_SMALL


def _agreement(source: Source, packs: Path, reporter: Reporter) -> int:
    """The side in which all images agree, 0 where they do not; looked up in their headers once."""
    noted = _noted_agreement(source, packs)
    if noted is not None:
        return noted
    agreed = _agreed_side(source, reporter) or 0
    try:
        atomic_write(_note(source, packs), str(agreed).encode())
    except OSError as error:
        raise cache_error(packs.parent, error) from None
    return agreed


def _note(source: Source, packs: Path) -> Path:
    return packs / f"{source.dataset}-{source.fingerprint[:16]}.agreed"


def _noted_agreement(source: Source, packs: Path) -> int | None:
    """What `_agreement` found earlier; None where there is no such note, or none that it could have written."""
    try:
        side = int(_note(source, packs).read_text())
    except (OSError, ValueError):
        return None
    return side if 0 <= side <= LARGEST_OWN else None


def median_side(source: Source, *, sample: int) -> int:
    """The median of the shorter sides of so many images, evenly spaced, in pixels; 0 where none can be read."""
    rows = np.linspace(0, len(source) - 1, min(len(source), sample)).astype(int)
    sizes = [_size(read_image(source, int(row))) for row in rows]
    return int(np.median([min(size) for size in sizes if size] or [0]))


def _agreed_side(source: Source, reporter: Reporter) -> int | None:
    """The side of all readable images if they are square, equal and small; else None, at the first that is not."""
    agreed: int | None = None
    for index in with_progress(range(len(source)), "measuring", reporter):
        content = read_image(source, index)
        size = _size(content)
        if size is None or size == (agreed, agreed):
            continue
        # The first image, or one that disagrees: it counts only if all of it can be read.
        if isinstance(content, bytes):
            try:
                decode(content, size=LARGEST_OWN)
            except DecodeError:
                continue
        if agreed is not None or size[0] != size[1] or size[0] > LARGEST_OWN:
            return None
        agreed = size[0]
    return agreed


def _size(content: Content | DecodeError) -> tuple[int, int] | None:
    """(width, height), from the header alone; None of what cannot be read."""
    if not isinstance(content, bytes):
        return None if isinstance(content, DecodeError) else (content.shape[1], content.shape[0])
    try:
        return image_size(content)
    except DecodeError:
        return None


def _load(folder: Path, source: Source, *, side: int, key: str) -> Pack | None:
    """The pack in `folder`, or None where it is missing, damaged or cut short."""
    packed = read_pack(folder, key=key, side=side)
    if packed is None:
        return None
    return Pack(
        **{**vars(packed), "set_aside": source.set_aside + packed.set_aside},
        path=folder,
        class_names=source.class_names,
        dataset=source.dataset,
        source=source.spec,
        hash=key,
        flips=source.flips,
    )


def _build(folder: Path, source: Source, *, side: int, key: str, reporter: Reporter) -> None:
    """Pack `source` into `folder`. Raises SourceError, OSError."""
    remove_abandoned(folder.parent)
    with atomic_path(folder, size=len(source) * side * side * 3) as temporary:
        temporary.mkdir()
        kept, aside = _write_images(temporary / "images.npy", source, side=side, reporter=reporter)
        labels = source.labels[kept]
        _check_classes(labels, source, aside)
        np.save(temporary / "labels.npy", labels)
        index = {"id": [source.ids[row] for row in kept], "given": [source.given[row] for row in kept]}
        pq.write_table(pa.table(index), temporary / "index.parquet")
        meta = {
            "version": PACK_VERSION,
            "key": key,
            "dataset": source.dataset,
            "fingerprint": source.fingerprint,
            "side": side,
            "count": len(kept),
            "set_aside": [[each.path, each.reason] for each in aside],
        }
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        seal(temporary)


def _write_images(
    path: Path, source: Source, *, side: int, reporter: Reporter
) -> tuple[NDArray[np.int64], list[SetAside]]:
    """Write the readable images one behind another; their numbers in the source, and the others with reasons."""
    kept: list[int] = []
    aside: list[SetAside] = []
    results = in_order(source, partial(_pixels, side=side))
    with path.open("wb") as file:
        _write_header(file, count=len(source), side=side)
        start = file.tell()
        for index, pixels in zip(with_progress(range(len(source)), "packing", reporter), results, strict=True):
            if isinstance(pixels, DecodeError):
                aside.append(SetAside(source.ids[index], str(pixels)))
            else:
                file.write(np.ascontiguousarray(pixels).data)
                kept.append(index)
        file.seek(0)
        _write_header(file, count=len(kept), side=side)
        if file.tell() != start:  # numpy pads the header so that the count can change; see numpy.lib.format
            raise SourceError(f"cache: expected numpy to keep the header of {path} at {start} bytes")
    return np.array(kept, dtype=np.int64), aside


def _write_header(file: IO[bytes], *, count: int, side: int) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
    np.lib.format.write_array_header_1_0(file, header)


def _pixels(content: Content, *, side: int) -> NDArray[np.uint8]:
    return decode(content, size=side) if isinstance(content, bytes) else resize(content, size=side)


def _check_classes(labels: NDArray[np.int64], source: Source, aside: list[SetAside]) -> None:
    counts = np.bincount(labels, minlength=len(source.class_names))
    first = f"; {len(aside)} were set aside, the first: {aside[0].path} ({aside[0].reason})" if aside else ""
    if not len(labels):
        raise SourceError(f"data: expected images, received {source.spec} with none that can be read{first}")
    if len(counts) < 2:
        raise SourceError(f"data: expected at least two classes, received {source.spec} with {len(counts)}{first}")
    if empty := np.flatnonzero(counts == 0).tolist():
        name = source.class_names[empty[0]]
        raise SourceError(
            f"data: expected an image in each class, received {source.spec} with none that can be read in "
            f"{name!r}{first}; replace them, or remove the class"
        )
