"""Files and folders that are written whole or not at all, what killed writers leave, room on disk, hashes.

What is written has a temporary name until it is complete, so a killed process leaves the old file or the new one.
The temporary folder that it leaves beside them is removed by the next writer.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lucidate.core.errors import DiskFullError

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}")  # as `atomic_path` names the folder that it writes in
WRITER = ".writer"  # the file in it that is locked for as long as its writer lives


@contextmanager
def atomic_path(path: Path, *, size: int = 0) -> Iterator[Path]:
    """A temporary path beside `path` to write to, a file or a folder; renamed to `path` if nothing is raised.

    A file replaces what stood there in one step. A folder takes two: should the second fail, the old one is put back;
    where a process is killed between them, the next writer of `path`, which removes what killed ones left, puts the new
    one there. size: bytes that are about to be written, where known. Raises DiskFullError when they do not fit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, path.name)
    if size > shutil.disk_usage(path.parent).free:
        raise _disk_full(path, needed=size)
    with _temporary_folder(path) as temporary:
        target = temporary / path.name
        try:
            yield target
        except OSError as error:
            # Other libraries' errors say only in words that a disk is full.
            full = error.errno in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)
            if isinstance(error, DiskFullError) or not full:
                raise
            written = sum(each.lstat().st_size for each in temporary.rglob("*"))
            raise _disk_full(path, needed=max(size, written)) from None
        if not (target.is_dir() and path.exists()):
            target.replace(path)
            return
        path.rename(temporary / "replaced")
        try:
            target.replace(path)
        except BaseException:
            (temporary / "replaced").rename(path)
            raise


def atomic_write(path: Path, content: bytes) -> None:
    """Write a whole file at once, flushed to disk before it gets its name. Raises DiskFullError when it has no room."""
    with atomic_path(path, size=len(content)) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, which holds a file that is locked until the folder is removed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        lock = FileLock(folder / WRITER)
        # Before it is locked, another writer may take the folder for a dead one's, and remove it.
        with suppress(FileNotFoundError):
            lock.acquire()
            if (folder / WRITER).exists():
                break
            lock.release()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove the temporary folders of killed writers in `folder`, of the path `name` or of any; end half-done swaps."""
    for entry in folder.glob(".*"):
        found = TEMPORARY.fullmatch(entry.name)
        if not found or name not in (None, found["name"]) or entry.is_symlink() or not entry.is_dir():
            continue
        with suppress(Timeout, OSError), FileLock(entry / WRITER, blocking=False):  # held: its writer is alive
            path = folder / found["name"]
            if (entry / "replaced").exists() and (entry / path.name).exists() and not path.exists():
                (entry / path.name).rename(path)
            shutil.rmtree(entry, ignore_errors=True)


def _disk_full(path: Path, *, needed: int) -> DiskFullError:
    """The one line for a disk without room for so many bytes."""
    free = shutil.disk_usage(path.parent).free
    room, left = (f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB" for size in (needed, free))
    return DiskFullError(
        f"{path}: expected room for {room} in {path.parent.absolute()}, received a full disk ({left} free); free some, "
        "or choose a folder on another disk"
    )


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
