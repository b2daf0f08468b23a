"""Getting a file over the network: resumed where it broke off, and given its name only when its hash is right."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lucidate.core.errors import ChecksumError, SourceError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.rundir import sha256 as file_sha256

TIMEOUT = 8.0  # seconds without an answer
RESUMES = 5  # after a transfer that broke off midway; a server that cannot be reached is tried once
PIECE = 1 << 18  # bytes
BROKEN = (OSError, http.client.HTTPException)  # what a connection ends in; URLError and TimeoutError are OSErrors


def cache_dir() -> Path:
    """Where downloads and packs are kept: $LUCIDATE_CACHE, $XDG_CACHE_HOME/lucidate or ~/.cache/lucidate."""
    if own := os.environ.get("LUCIDATE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "lucidate"


def cache_error(folder: Path, error: OSError) -> SourceError:
    """The one line for a cache that cannot be written to."""
    return SourceError(
        f"cache: expected a folder that can be written to, received {folder} ({error.strerror or error}); "
        "set LUCIDATE_CACHE to another folder"
    )


def download(
    url: str, destination: Path, *, sha256: str, size: int | None = None, reporter: Reporter | None = None
) -> Path:
    """Bring `url` to `destination`, with what an earlier try left in `<destination>.part` as its beginning.

    sha256: hex digest of the whole file. size: its bytes, where known.
    Raises ChecksumError for other content, which is deleted; SourceError when it cannot be fetched.
    """
    reporter = reporter or Silent()
    if not re.match(r"https?://", url):
        raise SourceError(f"url: expected http:// or https://, received {url!r}")
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        lock = part.with_name(part.name + ".lock").open("a")
    except OSError as error:
        raise cache_error(destination.parent, error) from None
    with lock, _alone(lock, part, reporter):
        if destination.exists() and file_sha256(destination) == sha256:
            return destination  # another process brought it while this one waited
        part.open("ab").close()
        _transfer(url, part, size=size, reporter=reporter)
        if (received := file_sha256(part)) != sha256:
            part.unlink()
            raise ChecksumError(
                f"{url}: expected a file with the SHA-256 checksum {sha256}, received {received}; "
                "the bad copy was deleted, so try again or take another mirror"
            )
        part.replace(destination)
    return destination


def _transfer(url: str, part: Path, *, size: int | None, reporter: Reporter) -> None:
    """Fill `part` up to its end, resuming after a broken connection as long as each try brings something."""
    problem: Exception | None = None
    for _ in range(1 + RESUMES):
        before = part.stat().st_size
        if size is not None and before >= size:
            return
        try:
            if _receive(url, part, size=size, reporter=reporter):
                return
            problem = None
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # the part is longer than the file: not of this file
                part.write_bytes(b"")
                continue
            raise SourceError(f"{url}: expected a file, received the answer {error.code} {error.reason}") from None
        except BROKEN as error:
            problem = error
        if part.stat().st_size <= before:
            break
    reason = getattr(problem, "reason", None) or problem or "a connection that keeps breaking off"
    raise SourceError(f"{url}: expected a connection, received: {reason}; what came is kept and will be resumed")


def _receive(url: str, part: Path, *, size: int | None, reporter: Reporter) -> bool:
    """One connection's worth, appended to `part`. True when the file is complete."""
    have = part.stat().st_size
    headers = {"User-Agent": "lucidate", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        resumed = response.status == 206
        if resumed and not str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
            raise http.client.HTTPException("a server that resumes at another place")
        done = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else size
        with part.open("ab" if resumed else "wb") as file:
            while piece := response.read(PIECE):
                try:
                    file.write(piece)
                except OSError as error:  # the disk's fault, not the connection's
                    raise cache_error(part.parent, error) from None
                done += len(piece)
                if total is not None:
                    reporter.advance(f"fetching {part.stem}", min(done, total), total)
                if size is not None and done > size:
                    return True  # longer than promised: the checksum will say so
    return total is None or done >= total


@contextmanager
def _alone(lock: IO[str], part: Path, reporter: Reporter) -> Iterator[None]:
    """Hold the download for one process; a second one waits. Where the system has no such lock, none."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        reporter.say(f"waiting for another process that fetches {part.stem}")
        fcntl.flock(lock, fcntl.LOCK_EX)
    yield  # closing the file releases the lock
