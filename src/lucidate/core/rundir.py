"""The run folder: where things stand in it, atomic writes, the lock, hashes.

A file is written under a temporary name and renamed, so a killed process leaves the old file or the new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lucidate.core.errors import RunError


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
        if path.is_dir() and any(path.iterdir()):
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
        try:
            with self.lock():
                yield
        except BaseException:
            if not self.weights.exists() and not self.checkpoints.exists():
                for made in (self.card, self.splits, self.path / ".lock"):
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
        with (self.path / ".lock").open("a+") as file:
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


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to, a file or a folder; renamed to `path` if nothing is raised.

    A file replaces what stood there in one step. A folder takes two: should the second fail, the old one is put back;
    a process killed between them leaves the old one in the temporary folder beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    target = temporary / path.name
    try:
        yield target
        if not (target.is_dir() and path.exists()):
            target.replace(path)
            return
        path.rename(temporary / "replaced")
        try:
            target.replace(path)
        except BaseException:
            (temporary / "replaced").rename(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def atomic_write(path: Path, content: bytes) -> None:
    """Write a whole file at once, flushed to disk before it gets its name."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


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
