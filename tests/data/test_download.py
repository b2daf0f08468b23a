from __future__ import annotations

import hashlib
import http.server
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lucidate.core.errors import ChecksumError, SourceError
from lucidate.core.progress import Silent
from lucidate.data.download import Unreachable, cache_dir, download

CONTENT = np.random.default_rng(0).bytes(700_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; `cuts` says after how many bytes each of the first connections breaks off."""

    cuts: list[int]
    ranges: list[str | None]
    resumes = True

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        if self.path != "/file.bin":
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.resumes else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        cut = self.cuts.pop(0) if self.cuts else len(CONTENT)
        self.wfile.write(CONTENT[start : start + cut])

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server():
    handler = type("ModelVersion", (Handler,), {"cuts": [], "ranges": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.02,))
        thread.start()
        handler.url = f"http://127.0.0.1:{served.server_port}/file.bin"
        yield handler
        served.shutdown()
        thread.join()


@pytest.fixture
def closed_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}/file.bin"


def test_download_reports_progress_and_leaves_only_the_file(server, tmp_path):
    seen: list[tuple[int, int]] = []

    class Listener(Silent):
        def advance(self, *progress) -> None:
            seen.append(progress[1:3])

    path = download(server.url, tmp_path / "new" / "file.bin", sha256=SHA, size=len(CONTENT), reporter=Listener())
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["file.bin"]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_cut_connection_is_resumed_where_it_broke_off(server, tmp_path, size):
    server.cuts += [300_000, 100_000]
    assert download(server.url, tmp_path / "file.bin", sha256=SHA, size=size).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=400000-"]


def test_a_part_from_an_earlier_try_is_continued(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    assert download(server.url, tmp_path / "file.bin", sha256=SHA).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_a_server_that_cannot_resume_starts_over(server, tmp_path):
    server.resumes = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    assert download(server.url, tmp_path / "file.bin", sha256=SHA, size=len(CONTENT)).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_over(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    assert download(server.url, tmp_path / "file.bin", sha256=SHA).read_bytes() == CONTENT


def test_a_wrong_hash_deletes_the_copy_so_that_the_next_try_starts_afresh(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(ChecksumError, match="checksum"):
        download(server.url, tmp_path / "file.bin", sha256=SHA, size=len(CONTENT))
    assert not (tmp_path / "file.bin").exists()
    assert not (tmp_path / "file.bin.part").exists()
    assert download(server.url, tmp_path / "file.bin", sha256=SHA, size=len(CONTENT)).read_bytes() == CONTENT


def test_a_file_longer_than_promised_is_refused(server, tmp_path):
    with pytest.raises(ChecksumError, match="checksum"):
        download(server.url, tmp_path / "file.bin", sha256=SHA, size=1000)


def test_a_connection_that_keeps_breaking_ends_in_one_line_and_keeps_the_part(server, tmp_path):
    server.cuts += [1000] * 6
    with pytest.raises(Unreachable, match="keeps breaking off; what came is kept and will be resumed") as caught:
        download(server.url, tmp_path / "file.bin", sha256=SHA, size=len(CONTENT))
    assert "\n" not in str(caught.value)
    assert len(server.ranges) == 6
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:6000]


def test_no_such_file_and_no_server(server, closed_url, tmp_path):
    with pytest.raises(SourceError, match="404"):
        download(server.url + "x", tmp_path / "file.bin", sha256=SHA)
    began = time.monotonic()
    with pytest.raises(SourceError, match="expected a connection"):
        download(closed_url, tmp_path / "file.bin", sha256=SHA)
    assert time.monotonic() - began < 10
    with pytest.raises(SourceError, match="https"):
        download("file:///etc/hostname", tmp_path / "file.bin", sha256=SHA)


def test_two_at_once_fetch_it_once(server, tmp_path):
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(download(server.url, tmp_path / "f.bin", sha256=SHA)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in results] == [True] * 3
    assert len(server.ranges) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["f.bin"]


def test_where_nothing_comes_nothing_is_left_and_nothing_is_promised(server, closed_url, tmp_path):
    for url, cuts in ((closed_url, []), (server.url + "x", []), (server.url, [0] * 6)):
        server.cuts[:] = cuts
        with pytest.raises(Unreachable) as caught:
            download(url, tmp_path / "new" / "cache" / "file.bin", sha256=SHA, size=len(CONTENT))
        assert "resumed" not in str(caught.value)
        assert "Errno" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "file.bin.part").write_bytes(b"")
    with pytest.raises(Unreachable, match=r"received: Connection refused$"):
        download(closed_url, tmp_path / "file.bin", sha256=SHA)
    assert list(tmp_path.iterdir()) == []


def test_those_who_wait_for_a_try_that_fails_try_themselves(server, tmp_path):
    server.cuts += [0]
    results: list[object] = []

    def work() -> None:
        try:
            results.append(download(server.url, tmp_path / "new" / "f.bin", sha256=SHA, size=len(CONTENT)))
        except Unreachable as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(result).__name__ for result in results) == ["PosixPath"] * 3 + ["Unreachable"]
    assert len(server.ranges) == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["f.bin"]


def test_a_wrong_file_in_the_place_is_replaced_only_by_the_right_one(server, closed_url, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"wrong")
    with pytest.raises(Unreachable):
        download(closed_url, tmp_path / "file.bin", sha256=SHA)
    assert (tmp_path / "file.bin").read_bytes() == b"wrong"
    assert download(server.url, tmp_path / "file.bin", sha256=SHA).read_bytes() == CONTENT


def test_a_part_that_cannot_be_written_is_the_disks_fault(server, tmp_path):
    (tmp_path / "file.bin.part").mkdir()
    with pytest.raises(SourceError, match=r"expected a folder that can be written to.*LUCIDATE_CACHE") as caught:
        download(server.url, tmp_path / "file.bin", sha256=SHA)
    assert "Errno" not in str(caught.value)


def test_a_folder_that_cannot_be_written_names_the_variable(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match="LUCIDATE_CACHE"):
        download(server.url, tmp_path / "file" / "below" / "file.bin", sha256=SHA)


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("LUCIDATE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("LUCIDATE_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "lucidate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "lucidate"
