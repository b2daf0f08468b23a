"""The run folder: where things stand in it, atomic writes, the lock, hashes.

A file is written under a temporary name and renamed, so a killed process leaves the old file or the new one. What it
leaves beside them, the next writer removes.
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
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lucidate.core.errors import DiskFullError, RunError

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}")  # as `atomic_path` names the folder that it writes in
WRITER = ".writer"  # the file in it that is locked for as long as its writer lives
LOCK = ".lock"


@dataclass(frozen=True)
class RunDir:
    """Paths inside `runs/<name>/`."""

    path: Path

    @property
    def card(self) -> Path:
        return self.path / "run.json"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def history(self) -> Path:
        return self.path / "history.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def splits(self) -> Path:
        return self.path / "splits.parquet"

    def analysis(self, split: str = "test") -> Path:
        """Findings about a split; those about the test split, which most readers want, have the plain name."""
        return self.path / "analysis" if split == "test" else self.path / "analysis" / split

    @property
    def explained(self) -> Path:
        return self.path / "explain"

    @property
    def exports(self) -> Path:
        """The model in other forms, each with what proves that it is the same."""
        return self.path / "export"

    def heatmaps(self, split: str = "test") -> Path:
        """The heatmaps that gallery and report show, where `explain` has made them."""
        return self.explained / f"shown-{split}.npz"

    def gallery(self, split: str = "test") -> Path:
        """The gallery of a split, named likewise."""
        return self.path / ("gallery" if split == "test" else f"gallery-{split}")

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.parquet"

    def one_view(self, split: str) -> Path:
        """The same without test-time views, where the recipe asks for some: what a quick server answers."""
        return self.path / "predictions" / f"{split}-one-view.parquet"

    @property
    def serving(self) -> Path:
        """What a server must know of the run's validation images."""
        return self.path / "serving.json"

    @classmethod
    def free(cls, path: Path) -> RunDir:
        """The folder if something new may be made in it; makes nothing. Raises RunError otherwise."""
        if (path / "run.json").exists():
            state = "a run" if (path / "weights.safetensors").exists() else "a run whose training did not end"
            raise RunError(
                f"--out: expected a new or empty folder, received {path}, which already holds {state}; "
                "choose another, delete it first, or go on with it by --resume"
            )
        if path.is_dir() and not all(_is_remains(entry) for entry in path.iterdir()):
            raise RunError(f"--out: expected a new or empty folder, received {path}, which holds other files")
        standing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        if not standing.is_dir() or not os.access(standing, os.W_OK):
            what = "not a folder" if not standing.is_dir() else "not writable"
            raise RunError(f"--out: expected a folder that can be made, received {path}, but {standing} is {what}")
        return cls(path)

    @contextmanager
    def claim(self, *, resume: bool = False) -> Iterator[None]:
        """Make the folder and hold its lock; if training ends with neither weights nor checkpoint, clean up.

        resume: also accept a folder that holds a run. Raises RunError when the folder is not free.
        """
        if not (resume and self.card.exists()):
            self.free(self.path)
        existed = self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        with self.lock():
            remove_abandoned(self.path)
            try:
                yield
            except BaseException:
                if not self.weights.exists() and not self.checkpoints.exists():
                    for made in (self.card, self.splits, self.path / LOCK):
                        made.unlink(missing_ok=True)
                    if not existed:
                        with suppress(OSError):  # somebody put a file there meanwhile: it stays
                            self.path.rmdir()
                raise

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run's folder. Raises RunError when it holds none, or one whose training never ended."""
        if not (path / "run.json").exists():
            raise RunError(f"run: expected a folder that holds a run (run.json), received {path}")
        if not (path / "weights.safetensors").exists():
            raise RunError(
                f"run: expected a finished run, received {path}, whose training did not end; "
                "go on with the command that started it and --resume"
            )
        return cls(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one writer. Raises RunError when another process has it.

        An advisory lock that the system drops when its holder dies; where the system has none, no lock.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        with (self.path / LOCK).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise RunError(
                    f"run: expected {self.path} to be free, but process {file.read() or '?'} is writing to it"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield  # closing the file releases the lock; the file stays, since removing it would race


def fresh_path(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `name-2`, `name-3` … that is not taken."""
    candidate, number = parent / name, 1
    while candidate.exists():
        number += 1
        candidate = parent / f"{name}-{number}"
    return candidate


def _is_remains(entry: Path) -> bool:
    """Whether a killed process may have left this in a run's folder before there was a run in it."""
    return entry.name == LOCK or (TEMPORARY.fullmatch(entry.name) is not None and entry.is_dir())


@contextmanager
def atomic_path(path: Path, *, size: int = 0) -> Iterator[Path]:
    """A temporary path beside `path` to write to, a file or a folder; renamed to `path` if nothing is raised.

    A file replaces what stood there in one step. A folder takes two: should the second fail, the old one is put back;
    where a process is killed between them, the next writer of `path` puts the new one there. That one also removes what
    killed writers left.

    size: bytes that are about to be written, where that is known. Raises DiskFullError when they do not fit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, path.name)
    require_space(path, size)
    with _temporary_folder(path) as temporary:
        target = temporary / path.name
        try:
            yield target
        except OSError as error:
            if isinstance(error, DiskFullError) or not _says_full(error):
                raise
            written = sum(each.lstat().st_size for each in temporary.rglob("*"))
            raise disk_full(path, needed=max(size, written), free=_free(path.parent)) from None
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
        lock.acquire()
        if (folder / WRITER).exists():
            break
        lock.release()  # another writer took the folder for a dead one's before it was locked, and removed it
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove the temporary folders of killed writers in `folder`: of the path `name`, or of any.

    A folder that was killed in the middle of being replaced gets its new content.
    """
    for entry in folder.glob(".*"):
        found = TEMPORARY.fullmatch(entry.name)
        if not found or name not in (None, found["name"]) or entry.is_symlink() or not entry.is_dir():
            continue
        with suppress(Timeout, OSError), FileLock(entry / WRITER, blocking=False):  # held: its writer is alive
            path = folder / found["name"]
            if (entry / "replaced").exists() and (entry / path.name).exists() and not path.exists():
                (entry / path.name).rename(path)
            shutil.rmtree(entry, ignore_errors=True)


def require_space(path: Path, size: int) -> None:
    """Refuse to write `size` bytes to `path` where the disk has no room for them. Raises DiskFullError."""
    if size > (free := _free(path.parent)):
        raise disk_full(path, needed=size, free=free)


def disk_full(path: Path, *, needed: int, free: int) -> DiskFullError:
    """The one line for a disk without room. needed, free: bytes."""
    return DiskFullError(
        f"{path}: expected room for {_megabytes(needed)} in {path.parent.absolute()}, received a full disk "
        f"({_megabytes(free)} free); free some, or choose a folder on another disk"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _says_full(error: OSError) -> bool:
    """Whether a disk or a quota is full; other libraries' errors say it only in words."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


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
