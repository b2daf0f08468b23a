"""Getting a file over the network: resumed where it broke off, and given its name only when its hash is right."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lucidate.core.atomic import sha256 as file_sha256
from lucidate.core.errors import ChecksumError, DiskFullError, SourceError
from lucidate.core.progress import Reporter, Silent

TIMEOUT = 8.0  # seconds without an answer
TRIES = 100  # of making a folder that another process keeps removing
RESUMES = 5  # after a transfer that broke off midway; a server that cannot be reached is tried once
PIECE = 1 << 18  # bytes


class Unreachable(SourceError):
    """A file that does not come, for want of a network or of a server that has it."""


def cache_dir() -> Path:
    """Where downloads and packs are kept: $LUCIDATE_CACHE, $XDG_CACHE_HOME/lucidate or ~/.cache/lucidate."""
    if own := os.environ.get("LUCIDATE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "lucidate"


def cache_error(folder: Path, error: OSError) -> SourceError:
    """The one line for a cache that cannot be written to, or has no room."""
    if isinstance(error, DiskFullError):
        return SourceError(f"cache: {error}: set LUCIDATE_CACHE to it")
    came = f"{folder} ({error.strerror or error}); set LUCIDATE_CACHE to another folder"
    return SourceError(f"cache: expected a folder that can be written to, received {came}")


def download(
    url: str, destination: Path, *, sha256: str, size: int | None = None, reporter: Reporter | None = None
) -> Path:
    """Bring `url` to `destination`, with what an earlier try left in `<destination>.part` as its beginning.

    sha256: hex digest of the whole file. size: its bytes, where known. What stands at `destination` with another
    checksum is replaced once the right one is here. Where nothing comes, nothing is left: no part, lock or folder.
    Raises ChecksumError for other content, which is deleted; Unreachable when it cannot be fetched; SourceError for a
    destination that cannot be written to.
    """
    reporter = reporter or Silent()
    if not re.match(r"https?://", url):
        raise SourceError(f"url: expected http:// or https://, received {url!r}")
    part = destination.with_name(destination.name + ".part")
    try:
        with _folder(destination.parent), one_process(part, reporter, doing="fetches"):
            if destination.exists() and file_sha256(destination) == sha256:
                return destination  # another process brought it while this one waited
            try:
                _transfer(url, part, size=size, reporter=reporter)
                received = file_sha256(part) if _size(part) else "an empty file"
                if received != sha256:
                    part.unlink(missing_ok=True)
                    raise ChecksumError(
                        f"{url}: expected a file with the SHA-256 checksum {sha256}, received {received}; "
                        "the bad copy was deleted, so try again or take another mirror"
                    )
                part.replace(destination)
            finally:
                if not _size(part):
                    part.unlink(missing_ok=True)
    except OSError as error:
        raise cache_error(destination.parent, error) from None
    return destination


def _transfer(url: str, part: Path, *, size: int | None, reporter: Reporter) -> None:
    """Fill `part` up to its end, resuming after a broken connection as long as each try brings something."""
    reason = broken = "a connection that keeps breaking off"
    for _ in range(1 + RESUMES):
        before = _size(part)
        if size is not None and before >= size:
            return
        try:
            if _receive(url, part, size=size, reporter=reporter):
                return
            reason = broken
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # the part is longer than the file: not of this file
                part.unlink()
                continue
            raise Unreachable(f"{url}: expected a file, received the answer {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:  # URLError and TimeoutError are OSErrors
            cause = getattr(error, "reason", None) or error
            reason = str(getattr(cause, "strerror", None) or cause or type(cause).__name__)  # without "[Errno 111]"
        if _size(part) <= before:
            break
    kept = "; what came is kept and will be resumed" if _size(part) else ""
    raise Unreachable(f"{url}: expected a connection, received: {reason}{kept}")


def _receive(url: str, part: Path, *, size: int | None, reporter: Reporter) -> bool:
    """One connection's worth, appended to `part`. True when the file is complete."""
    have = _size(part)
    headers = {"User-Agent": "lucidate", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={have}-"} if have else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        resumed = response.status == 206
        if resumed and not str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
            raise http.client.HTTPException("a server that resumes at another place")
        done = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else size
        if not resumed:
            with _disk(part):
                part.unlink(missing_ok=True)
        while piece := response.read(PIECE):
            with _disk(part), part.open("ab") as file:
                file.write(piece)
            done += len(piece)
            if total is not None:
                reporter.advance(f"fetching {part.stem}", min(done, total), total)
            if size is not None and done > size:
                return True  # longer than promised: the checksum will say so
    return total is None or done >= total


def _size(part: Path) -> int:
    """Bytes that have come so far."""
    return part.stat().st_size if part.exists() else 0


@contextmanager
def _disk(part: Path) -> Iterator[None]:
    """An OSError in here is the disk's fault, not the connection's."""
    try:
        yield
    except OSError as error:
        raise cache_error(part.parent, error) from None


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """`folder`, made if need be; of what had to be made, what stays empty is removed again."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    make_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty: something came, or another process is at work there
            for each in new:
                each.rmdir()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, also while another process removes them, empty, again."""
    for _ in range(TRIES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except (FileExistsError, FileNotFoundError):  # there when it was to be made, and gone when it was looked at
            if folder.exists():
                raise
    folder.mkdir(parents=True)  # which says why it cannot be made


@contextmanager
def one_process(part: Path, reporter: Reporter, *, doing: str) -> Iterator[None]:
    """Keep the making of a file or folder to one process; a second waits, and hears what the first is `doing`."""
    path = part.with_name(part.name + ".lock")
    lock, waits = FileLock(path), False
    while not lock.is_locked:
        make_folder(path.parent)
        try:
            lock.acquire(blocking=waits)
        except Timeout:
            waits = True
            reporter.say(f"waiting for another process that {doing} {part.name.removesuffix('.part')}")
        except FileNotFoundError:  # the other process has removed the folder, which was empty
            continue
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: FileLock never takes a file that has lost its name
        lock.release()
