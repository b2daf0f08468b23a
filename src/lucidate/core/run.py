"""The run folder: where its files are, who may write to it, and whether it holds a finished run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lucidate.core.atomic import TEMPORARY, atomic_write, remove_abandoned
from lucidate.core.errors import RunError

LOCK = ".lock"  # holds the number of the process that writes to the run


class Inside:
    """A path in a run's folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: RunDir, owner: type[RunDir] | None = None) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunDir:
    """Paths inside `runs/<name>/`; of what is made for each split, that of the test split has the plain name."""

    path: Path

    card = Inside("run.json")
    weights = Inside("weights.safetensors")
    history = Inside("history.json")
    checkpoints = Inside("checkpoints")
    splits = Inside("splits.parquet")
    explained = Inside("explain")
    exports = Inside("export")  # the model in other forms, each with what proves that it is the same
    serving = Inside("serving.json")  # what a server must know of the run's validation images

    def analysis(self, split: str = "test") -> Path:
        """Findings about a split."""
        return self.path / "analysis" if split == "test" else self.path / "analysis" / split

    def gallery(self, split: str = "test") -> Path:
        return self.path / ("gallery" if split == "test" else f"gallery-{split}")

    def heatmaps(self, split: str = "test") -> Path:
        """The heatmaps that gallery and report show, where `explain` has made them."""
        return self.explained / f"shown-{split}.npz"

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.parquet"

    def one_view(self, split: str) -> Path:
        """The same without test-time views, where the recipe asks for some: what a quick server answers."""
        return self.predictions(f"{split}-one-view")

    @classmethod
    def free(cls, path: Path) -> RunDir:
        """The folder if something new may be made in it; makes nothing. Raises RunError otherwise."""
        run = cls(path)
        if run.card.exists():
            state = "a run" if run.weights.exists() else "a run whose training did not end"
            raise RunError(
                f"--out: expected a new or empty folder, received {path}, which already holds {state}; "
                "choose another, delete it first, or go on with it by --resume"
            )
        for entry in path.iterdir() if path.is_dir() else ():
            if entry.name == LOCK or (TEMPORARY.fullmatch(entry.name) and entry.is_dir()):
                continue  # what a killed process may have left before there was a run
            raise RunError(f"--out: expected a new or empty folder, received {path}, which holds other files")
        standing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        if not standing.is_dir() or not os.access(standing, os.W_OK):
            what = "not a folder" if not standing.is_dir() else "not writable"
            raise RunError(f"--out: expected a folder that can be made, received {path}, but {standing} is {what}")
        return run

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
        run = cls(path)
        if not run.card.exists():
            raise RunError(f"run: expected a folder that holds a run (run.json), received {path}")
        if not run.weights.exists():
            raise RunError(
                f"run: expected a finished run, received {path}, whose training did not end; "
                "go on with the command that started it and --resume"
            )
        return run

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one writer while the block and its process live. Raises RunError where another has it."""
        path = self.path / LOCK
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            holder = "?"
            with suppress(OSError):  # Windows lets nobody read a locked file
                holder = path.read_text() or "?"
            raise RunError(f"run: expected {self.path} to be free, but process {holder} is writing to it") from None
        try:
            with suppress(PermissionError):  # Windows lets nobody write to a locked file
                path.write_text(str(os.getpid()))
            yield
        finally:
            lock.release()  # the file stays, since removing it would race


def fresh_path(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `name-2`, `name-3` … that is not taken."""
    candidate, number = parent / name, 1
    while candidate.exists():
        number += 1
        candidate = parent / f"{name}-{number}"
    return candidate


def begin_study(
    path: Path, asked: dict[str, Any], *, what: str, sections: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Note in a study's file what is run beside it. Raises RunError where something else was begun.

    what: the study, in words. sections: of what was asked, those that must stay as they are.
    """
    if not path.exists():
        atomic_write(path, json.dumps(asked, indent=1).encode())
        return
    try:
        before = sections(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}: expected {what} that lucidate began; choose another --out") from None
    for section, value in sections(asked).items():
        if before.get(section) != value:
            raise RunError(
                f"--out: expected {what} that {path.parent} was begun with, {section} = {before.get(section)}, "
                f"received {value}; repeat that, or choose another --out"
            )
