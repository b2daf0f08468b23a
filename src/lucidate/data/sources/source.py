"""What every source of images is, once opened; the registry of those that have a name; how all are read and checked."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lucidate.core.errors import SourceError
from lucidate.core.progress import Reporter
from lucidate.core.records import slug
from lucidate.core.text import brief
from lucidate.data.decode import DecodeError

T = TypeVar("T")
Content = bytes | NDArray[np.uint8]  # an encoded file, or pixels (H, W, 3)

CHUNK_IMAGES = 64
CHUNK_BYTES = 8 << 20  # a chunk ends at whichever comes first, so large photos do not pile up in memory
NOT_NAMES = re.compile(r"(-\d{5}-of-\d{5})?\.(tar\.gz|tgz|tar|parquet)$")  # what tells of the form at a name's end
# Names that tell nothing of what is in a folder.
GENERIC = {"data", "dataset", "datasets", "image", "images", "img", "imgs"}
GENERIC |= {"train", "training", "test", "val", "validation"}
# As written on disk → what it is.
SPLIT_NAMES = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}


@dataclass(frozen=True)
class SetAside:
    """Something in the source that is not among its images, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Source:
    """Images with labels, ready to be read one by one in any order.

    dataset: slug for file names. spec: as the user wrote it. ids: unique and stable, (N,). labels: int64 (N,), each an
    index into class_names. given: per image "train", "test" or "" (the source has no split of its own).
    read: number → encoded file content, or uint8 pixels (H, W, 3). Raises DecodeError or OSError where that one
    image is at fault, another SourceError where the source is.
    fingerprint: SHA-256 over the content, independent of where it lies. flips: a mirrored image keeps its class.
    """

    dataset: str
    spec: str
    class_names: tuple[str, ...]
    ids: list[str]
    labels: NDArray[np.int64]
    given: list[str]
    read: Callable[[int], Content]
    fingerprint: str
    flips: bool
    set_aside: tuple[SetAside, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class NamedSource:
    """What can be done with a source that has a name; one that is embedded needs no more than `open`.

    open: its images, of an archive only if its checksum is right. find: where a copy lies on this machine, unread.
    fetch: that copy, checked, or a new one; None where there is nothing to fetch.
    """

    open: Callable[[Reporter], Source]
    find: Callable[[], Path | None] = lambda: None
    fetch: Callable[[Reporter], Path | None] = lambda _: None


sources: dict[str, NamedSource] = {}  # by name


def reason(error: OSError, *, about: str | Path) -> str:
    """What the system says, such as "Permission denied: /data/cat". about: what the sentence names already."""
    words = error.strerror or str(error) or type(error).__name__
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(about)
    return words if path == str(about) else f"{words}: {path}"


def dataset_name(path: Path) -> str:
    """The slug of what lies at `path`: CIFAR-10's own names become "cifar10", others lose their suffix.

    Where it could be anybody's ("data", "Dataset", "train"), it is the name of the nearest folder above that says more.
    """
    whole = Path(os.path.abspath(path))
    for name in (whole.name, *(folder.name for folder in whole.parents)):
        bare = NOT_NAMES.sub("", name)
        if bare.startswith("cifar-10-"):
            return "cifar10"
        if bare and bare.lower() not in GENERIC:
            return slug(bare)
    return slug(NOT_NAMES.sub("", whole.name))


def given_splits(found: Collection[str], *, where: str, reporter: Reporter) -> Mapping[str, str]:
    """What each split on disk ("train", "test", "val") counts as: "train", "test", or "" when there is only one."""
    if not {"train", "test"} <= set(found):
        if {"train", "val"} <= set(found):
            return {"train": "train", "val": "test"}
        return dict.fromkeys(found, "")
    if "val" in found:
        reporter.say(f"{where}: its validation images are added to train; lucidate takes validation from train itself")
    return {"train": "train", "val": "train", "test": "test"}


def numbered(sizes: Mapping[str, int]) -> list[str]:
    """Ids of images that have no names, by how many each split has: "train/00000" …, or "00000" … of no split."""
    return [f"{split}/{row:05d}" if split else f"{row:05d}" for split, size in sizes.items() for row in range(size)]


def check_class_names(names: Collection[str], *, where: str) -> tuple[str, ...]:
    """Names as they stand, if they can be told apart. Raises SourceError."""
    if len(set(names)) != len(names) or not all(names):
        raise SourceError(f"{where}: expected class names that differ and are not empty, received {brief(list(names))}")
    return tuple(names)


def in_order(source: Source, work: Callable[[Content], T]) -> Iterator[T | DecodeError]:
    """`work` applied to each image by several threads, results in the source's order; DecodeError where it fails.

    Reading stays in this thread, so that a source may read ahead; Pillow frees the interpreter while it decodes.
    """
    workers = os.cpu_count() or 1
    waiting: deque[Future[list[T | DecodeError]]] = deque()

    def run(contents: list[Content | DecodeError]) -> list[T | DecodeError]:
        results: list[T | DecodeError] = []
        for content in contents:
            try:
                results.append(content if isinstance(content, DecodeError) else work(content))
            except DecodeError as error:
                results.append(error)
        return results

    with ThreadPoolExecutor(workers) as pool:
        try:
            for chunk in _chunks(source):
                waiting.append(pool.submit(run, chunk))
                if len(waiting) > workers + 1:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_image(source: Source, index: int) -> Content | DecodeError:
    """One image's content, or why it cannot be read."""
    try:
        return source.read(index)
    except DecodeError as error:
        return error
    except OSError as error:
        return DecodeError(f"cannot be read: {error.strerror or error}")


def _chunks(source: Source) -> Iterator[list[Content | DecodeError]]:
    chunk: list[Content | DecodeError] = []
    size = 0
    for index in range(len(source)):
        chunk.append(content := read_image(source, index))
        if not isinstance(content, DecodeError):
            size += len(content) if isinstance(content, bytes) else content.nbytes
        if len(chunk) == CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
