"""CIFAR-10 as its authors give it: python batches, binary batches, or an archive of either.

An archive is read as a stream and never unpacked to disk: its members are taken by their base name, links and names
that lead elsewhere are passed over, and the stream is read to its end, where gzip keeps its checksum.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from lucidate.core.atomic import sha256
from lucidate.core.errors import ChecksumError, SourceError
from lucidate.core.progress import Reporter
from lucidate.data.sources.source import Source, check_class_names, dataset_name, given_splits, numbered
from lucidate.data.sources.unpickle import ROW, check_labels, load_batch, load_class_names

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PYTHON_PIN = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
PYTHON_BYTES = 170_498_071
BINARY_PIN = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
BINARY_BYTES = 170_052_171
PINS = {PYTHON_BYTES: PYTHON_PIN, BINARY_BYTES: BINARY_PIN}  # the two official archives, by their size
OFFICIAL_SIZES = {"train": [10_000] * 5, "test": [10_000]}  # images in each batch

PYTHON_FILE = re.compile(r"(data_batch_\d+|test_batch|batches\.meta)")
BINARY_FILE = re.compile(r"(data_batch_\d+\.bin|test_batch\.bin|batches\.meta\.txt)")
NESTED = ("cifar-10-batches-py", "cifar-10-batches-bin")
MAX_BATCH_BYTES = 256 << 20  # eight times a real batch
MAX_STREAM_BYTES = 1 << 30  # five times the real archive; a small file can unpack to any length

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")


def find_batches(folder: Path) -> dict[str, Path]:
    """File name → path of the batches in `folder`, or one level down in a folder of CIFAR's own name."""
    for inside in (folder, *(folder / name for name in NESTED)):
        for pattern in (PYTHON_FILE, BINARY_FILE):
            found = {path.name: path for path in inside.glob("*") if pattern.fullmatch(path.name) and path.is_file()}
            if any("_batch" in name for name in found):
                return found
    return {}


def open_batches(folder: Path, *, spec: str, reporter: Reporter) -> Source:
    """A folder for which `find_batches` finds some. Raises SourceError, UnsafeFileError."""
    found = find_batches(folder)
    sizes = {path: path.stat().st_size for path in found.values()}
    for path, size in sizes.items():
        if size > MAX_BATCH_BYTES:
            raise SourceError(f"{path}: expected a CIFAR batch, received {size:,} bytes")
    if sum(sizes.values()) > MAX_STREAM_BYTES:
        raise SourceError(f"{folder}: expected CIFAR batches of less than {MAX_STREAM_BYTES >> 30} GiB in all")
    files = {name: path.read_bytes() for name, path in found.items()}
    return _assemble(files, path=folder, spec=spec, reporter=reporter)[0]


def open_archive(path: Path, *, spec: str, pin: str | None = None, reporter: Reporter) -> Source:
    """An archive of python or binary batches.

    pin: the SHA-256 that it must have; without one, that of an official archive if it is as large or as full as one.
    Raises ChecksumError for damaged or altered bytes, SourceError for another archive, UnsafeFileError.
    """
    pin = pin or PINS.get(path.stat().st_size)
    if pin and (received := sha256(path)) != pin:
        raise _altered(path, pin, received)
    files = _members(path)
    if not any("_batch" in name for name in files):
        raise SourceError(
            f"data: expected an archive of CIFAR-10's batches (data_batch_1, test_batch …), received {path}, "
            "which holds none"
        )
    source, sizes = _assemble(files, path=path, spec=spec, reporter=reporter)
    if not pin and sizes == OFFICIAL_SIZES:
        binary = any(name.endswith(".bin") for name in files)
        raise _altered(path, BINARY_PIN if binary else PYTHON_PIN, sha256(path))
    return source


def is_official(path: Path) -> bool:
    """The file is, to the byte, one of the two archives that CIFAR-10's authors give."""
    pin = PINS.get(path.stat().st_size)
    return pin is not None and sha256(path) == pin


def _altered(path: Path, pin: str, received: str) -> ChecksumError:
    return ChecksumError(
        f"{path}: expected CIFAR-10's archive with the SHA-256 checksum {pin}, received {received}; delete it "
        "and run `lucidate data fetch cifar10`, or extract it and give the folder, which is read without this check"
    )


def _members(path: Path) -> dict[str, bytes]:
    """The batches in an archive: base name → content."""
    files: dict[str, bytes] = {}
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped and path.name.endswith("gz"):
                raise gzip.BadGzipFile("not a gzip file")
            stream = _Bounded(cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if zipped else raw, path)
            # "r|" only ever reads forward, so nothing is unpacked twice and `stream` can keep count
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
                for member in tar:
                    name = _wanted(member)
                    if name is None or name in files:
                        continue
                    if member.size > MAX_BATCH_BYTES:
                        raise SourceError(f"{path}: expected CIFAR batches, received {name} of {member.size:,} bytes")
                    content = tar.extractfile(member)
                    files[name] = content.read() if content else b""
                    if len(files[name]) != member.size:
                        raise EOFError(f"{name} ends early")
                end = tar.offset
            while stream.read(1 << 20):  # gzip compares its checksum at the very end
                pass
            if not zipped:
                raw.seek(end)
                if raw.read(512) != bytes(512):  # tarfile takes a broken header for the end
                    raise tarfile.ReadError("no end mark")
    except (EOFError, zlib.error, tarfile.TarError, gzip.BadGzipFile, ValueError) as error:
        raise ChecksumError(
            f"{path}: expected a whole archive, received one whose checksum or structure is broken ({error}); "
            "delete it and fetch it again"
        ) from None
    return files


def _wanted(member: tarfile.TarInfo) -> str | None:
    """The base name of a member that is a plain file of CIFAR's; None for links and for names that lead elsewhere."""
    path = PurePosixPath(member.name)
    if not member.isreg() or member.issparse() or path.is_absolute() or ".." in path.parts:
        return None
    known = PYTHON_FILE.fullmatch(path.name) or BINARY_FILE.fullmatch(path.name)
    return path.name if known else None


class _Bounded:
    """A stream that ends in an error rather than in a full memory."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream, self.path, self.left = stream, path, MAX_STREAM_BYTES

    def read(self, size: int) -> bytes:
        content = self.stream.read(min(size, self.left + 1))
        self.left -= len(content)
        if self.left < 0:
            raise SourceError(
                f"{self.path}: expected CIFAR-10's archive, received one that unpacks to more than "
                f"{MAX_STREAM_BYTES >> 30} GiB"
            )
        return content


def _assemble(
    files: Mapping[str, bytes], *, path: Path, spec: str, reporter: Reporter
) -> tuple[Source, dict[str, list[int]]]:
    """The source that the batches make up, train first, and how many images each batch holds."""
    where = str(path)
    binary = not any(PYTHON_FILE.fullmatch(name) for name in files if "_batch" in name)
    class_names = _class_names(files, binary=binary, where=where)
    order = [name for name in files if "_batch" in name and name.endswith(".bin") == binary]
    order.sort(key=lambda name: (name.startswith("test"), len(name), name))  # data_batch_2 before data_batch_10
    load = _load_binary if binary else load_batch
    batches = [load(files[name], name=f"{where}: {name}", num_classes=len(class_names)) for name in order]
    sizes: dict[str, list[int]] = {}
    for name, (pixels, _) in zip(order, batches, strict=True):
        sizes.setdefault("test" if name.startswith("test") else "train", []).append(len(pixels))
    totals = {split: sum(counts) for split, counts in sizes.items()}
    role = given_splits(sizes, where=where, reporter=reporter)
    rows = np.ascontiguousarray(np.concatenate([pixels for pixels, _ in batches]))
    labels = np.concatenate([classes for _, classes in batches])
    digest = hashlib.sha256(repr((class_names, totals)).encode())
    digest.update(rows.data)
    digest.update(labels.data)
    source = Source(
        dataset=dataset_name(path),
        spec=spec,
        class_names=class_names,
        ids=numbered(totals),
        labels=labels,
        given=[role[split] for split, total in totals.items() for _ in range(total)],
        read=lambda index: np.ascontiguousarray(rows[index].reshape(3, 32, 32).transpose(1, 2, 0)),
        fingerprint=digest.hexdigest(),
        flips=True,
    )
    return source, sizes


def _class_names(files: Mapping[str, bytes], *, binary: bool, where: str) -> tuple[str, ...]:
    meta = "batches.meta.txt" if binary else "batches.meta"
    where = f"{where}: {meta}"
    if meta not in files:
        return CLASS_NAMES
    if not binary:
        return load_class_names(files[meta], name=where)
    names = [line.strip() for line in files[meta].decode("utf-8", "replace").split("\n") if line.strip()]
    if len(names) < 2:
        raise SourceError(f"{where}: expected a class name a line, received {len(names)} lines")
    return check_class_names(names, where=where)


def _load_binary(content: bytes, *, name: str, num_classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Records of one label byte and 3,072 of pixels. Raises SourceError."""
    if not content or len(content) % (ROW + 1):
        raise SourceError(
            f"{name}: expected records of {ROW + 1} bytes, received {len(content):,} bytes, which ends within one; "
            "the file is truncated or another"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, ROW + 1)
    labels = records[:, 0].astype(np.int64)
    check_labels(labels, name=name, num_classes=num_classes)
    return records[:, 1:], labels
