"""A folder of images: one sub-folder a class, with or without `train` and `test` above them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lucidate.core.atomic import sha256
from lucidate.core.errors import SourceError
from lucidate.core.progress import Reporter, with_progress
from lucidate.data.decode import MAX_FILE_BYTES, read_encoded
from lucidate.data.sources.source import SPLIT_NAMES, SetAside, Source, dataset_name, given_splits

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
IGNORED = frozenset(("thumbs.db", "desktop.ini", "__macosx"))  # what file managers leave; hidden files besides
LAYOUT = "FOLDER/CLASS/IMAGE or FOLDER/train/CLASS/IMAGE"


def open_folder(path: Path, *, spec: str, reporter: Reporter) -> Source:
    """Every image file below a class's sub-folder, however deep, in the order of its relative path.

    Other files are set aside with a reason. Links that lead out of the folder are not followed, nor links to folders.
    The fingerprint covers each image's relative path and bytes. Raises SourceError.
    """
    found = sorted(_files(path))
    images = [each for each, reason in found if reason is None]
    aside = [SetAside(each, reason) for each, reason in found if reason is not None]
    splits = _splits(path, images)
    depth = 1 if splits else 0  # where in the path the class stands
    kept = []
    for each in images:
        parts = Path(each).parts
        if len(parts) > depth + 1 and (not splits or parts[0] in splits):
            kept.append(each)
        else:
            aside.append(SetAside(each, "outside any class's folder"))
    if not kept:
        what = f"{len(images)} images but no sub-folders" if images else "no image files"
        raise SourceError(f"data: expected {LAYOUT}, received {path}, which holds {what}")
    classes = sorted({Path(each).parts[depth] for each in kept})
    folders = {name for root in ([path / split for split in splits] or [path]) for name in _folders(root)}
    if empty := sorted(folders - set(classes)):
        raise SourceError(
            f"data: expected images in each class's folder, received {path} with none in {empty[0]!r}; "
            "add some, or remove that folder"
        )
    if len(classes) < 2:
        raise SourceError(f"data: expected at least two class sub-folders in {path}, received one ({classes[0]!r})")
    split_of = [SPLIT_NAMES[Path(each).parts[0].lower()] if splits else "" for each in kept]
    role = given_splits(set(split_of), where=str(path), reporter=reporter) if splits else {"": ""}
    given = [role[split] for split in split_of]
    class_of = [Path(each).parts[depth] for each in kept]
    trained = {name for name, split in zip(class_of, given, strict=True) if split == "train"}
    tested = {name for name, split in zip(class_of, given, strict=True) if split == "test"}
    if only := sorted(tested - trained):
        raise SourceError(
            f"data: expected each class of test in train too, received {path} with {only[0]!r} in test only; "
            "add images of it to train, or remove it from test"
        )
    number = {name: index for index, name in enumerate(classes)}
    return Source(
        dataset=dataset_name(path),
        spec=spec,
        class_names=tuple(classes),
        ids=kept,
        labels=np.array([number[name] for name in class_of], dtype=np.int64),
        given=given,
        read=lambda index: read_encoded(path / kept[index]),
        fingerprint=_fingerprint(path, kept, reporter),
        flips=True,
        set_aside=tuple(aside),
    )


def holds_images(path: Path) -> bool:
    """True at the first image file below `path`."""
    return any(reason is None for _, reason in _files(path))


def _files(path: Path) -> Iterator[tuple[str, str | None]]:
    """(relative posix path, why it is no image or None) of every file below `path` that is not hidden."""
    root = path.resolve()
    for name, entry in walk(path, skipped=_hidden):
        shown = name.encode("utf-8", "backslashreplace").decode()
        if isinstance(entry, OSError):
            yield shown, f"cannot be read: {entry.strerror}"
        elif not entry.is_dir(follow_symlinks=False):
            yield shown, _fault(entry, root)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED


def _fault(entry: os.DirEntry[str], root: Path) -> str | None:
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(root):
            return "a link that leads outside the folder"
        if os.path.isdir(target):
            return "a link to a folder"
    if not is_file(entry):
        return "not a file, or a broken link"
    suffix = Path(entry.name).suffix
    if suffix.lower() not in SUFFIXES:
        return f"not an image file ({suffix or 'no extension'})"
    try:
        entry.name.encode()
    except UnicodeEncodeError:  # it could not be written to any table
        return "a file name that is not UTF-8"
    return None


def _splits(path: Path, images: list[str]) -> set[str]:
    """Top folders that are splits (train, test …) and not classes; empty where the classes are on top."""
    # A class may be called "train" too, so one such name among others is not enough.
    folders = set(_folders(path))
    named = {name for name in folders if name.lower() in SPLIT_NAMES}
    roles = {SPLIT_NAMES[name.lower()] for name in named}
    nested = any(len(Path(each).parts) > 2 and Path(each).parts[0] in named for each in images)
    return named if nested and (("train" in roles and len(roles) > 1) or named == folders) else set()


def _folders(path: Path) -> list[str]:
    return [entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False) and not _hidden(entry.name)]


def _fingerprint(path: Path, kept: list[str], reporter: Reporter) -> str:
    digest = hashlib.sha256(b"folder")
    for each in with_progress(kept, "reading", reporter):
        try:
            size = (path / each).stat().st_size
            # Of what is too large to be read, the size must do: it is set aside, and reading it takes minutes.
            content = sha256(path / each) if size <= MAX_FILE_BYTES else f"{size} bytes"
        except OSError:
            content = "unreadable"  # it will be set aside with the reason when it is read
        digest.update(f"{each}\0{content}\n".encode())
    return digest.hexdigest()


def walk(
    root: Path, *, skipped: Callable[[str], bool] = lambda _: False
) -> Iterator[tuple[str, os.DirEntry[str] | OSError]]:
    """(relative posix path, entry) of all that lies below `root`, folders before what is in them, in order of names.

    Links to folders are named, not entered. skipped: of a name, whether it is passed over, with all below it.
    A folder that cannot be listed has its OSError in place of entries; `root` itself is then ".".
    """
    # A stack, not recursion: Python's ends after a thousand folders within folders.
    stack = [("", _listed(root, skipped))]
    while stack:
        below, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, OSError):
            yield below.rstrip("/") or ".", entry
        else:
            yield below + entry.name, entry
            if entry.is_dir(follow_symlinks=False):
                stack.append((f"{below}{entry.name}/", _listed(Path(entry.path), skipped)))


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a plain file or a link to one; pipes and devices are not: reading one may never end."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself, or to a name that is too long
        return False


def _listed(folder: Path, skipped: Callable[[str], bool]) -> Iterator[os.DirEntry[str] | OSError]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((each for each in entries if not skipped(each.name)), key=lambda entry: entry.name)
    except OSError as error:
        return iter([error])
    return iter(found)
