"""Everything below a folder, however deep, and whatever is wrong with parts of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


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
