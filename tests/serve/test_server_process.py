"""`lucidate serve` as a process: how it starts, how it ends, what it refuses."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server, served, until

from lucidate.cli.main import main
from lucidate.core.errors import ServeError
from lucidate.core.run import RunDir
from lucidate.serve.repository import Repository
from lucidate.serve.server import serve
from lucidate.serve.settings import Settings, load_settings

pytestmark = pytest.mark.slow


def ask(server: Server, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request("GET" if body is None else "POST", path, body, headers or {})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


class Clients:
    """Threads that ask for predictions on kept connections, each until the server takes no connection any more."""

    def __init__(self, server: Server, png: bytes, *, count: int = 6) -> None:
        self.server, self.png = server, png
        self.statuses: Counter[int] = Counter()
        self.broken: list[str] = []
        self.threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _ask(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while True:
            if connection is None:
                connection = http.client.HTTPConnection(*self.server.address, timeout=30)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return  # not admitted, and told so
            try:
                connection.request("POST", "/v1/predict", self.png)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(repr(error))
                return
            self.statuses[answer.status] += 1
            if answer.getheader("connection") == "close":
                connection.close()
                connection = None

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def own_hangup() -> Iterator[None]:
    """SIGHUP as it is by itself, also where the tests run under nohup, which hands its ignoring down."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("own_hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_end_under_load_fails_nobody(number: signal.Signals, untrained: RunDir, png: bytes, tmp_path: Path) -> None:
    shutil.copytree(untrained.path, tmp_path / "photos")
    with served(tmp_path / "photos", log=tmp_path / "log", options=("--set", "grace_seconds=0.5")) as server:
        assert server.models == ["photos"]
        clients = Clients(server, png)
        until(lambda: clients.statuses[200] > 50)
        begun = time.monotonic()
        server.process.send_signal(number)
        until(lambda: ask(server, "/v2/health/ready")[0] == 503)
        assert ask(server, "/v2/health/live")[0] == 200
        assert server.process.wait(60) == 0
        took = time.monotonic() - begun
        clients.join()
    assert clients.broken == []
    assert set(clients.statuses) == {200}
    assert took < 30, "drain_seconds"


def test_under_nohup_a_terminal_that_closes_is_no_end(untrained: RunDir, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a process hands down to those that it starts
    try:
        with served(untrained.path, log=tmp_path / "log", options=("--set", "grace_seconds=0")) as server:
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            assert ask(server, "/v2/health/ready")[0] == 200
            assert server.stop() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_stalled_upload_does_not_keep_the_server(untrained: RunDir, tmp_path: Path) -> None:
    options = ("--set", "grace_seconds=0", "--set", "drain_seconds=2")
    with (
        served(untrained.path, log=tmp_path / "log", options=options) as server,
        socket.create_connection(server.address) as body,
        socket.create_connection(server.address) as head,
    ):
        body.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        head.sendall(b"GET /v2 HTTP")
        assert ask(server, "/v2/health/live")[0] == 200
        assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_admins_alone_load_and_unload(untrained: RunDir, tmp_path: Path) -> None:
    settings = tmp_path / "serve.toml"
    settings.write_text('admin_keys = ["open sesame"]\ngrace_seconds = 0\n')
    log = tmp_path / "log"
    with served(f"one={untrained.path}", log=log, options=("--settings", str(settings))) as server:
        path = "/v2/repository/models/one/unload"
        assert ask(server, path, b"")[0] == 401
        assert ask(server, path, b"", {"X-API-Key": "open sesam"})[0] == 401
        assert ask(server, path, b"{}", {"Authorization": "Bearer open sesame"})[0] == 200
        assert ask(server, "/v2/models/one/ready")[0] == 404
        assert ask(server, "/v2/repository/models/one/load", b"", {"X-API-Key": "open sesame"})[0] == 200
        assert json.loads(ask(server, "/v2/models/one")[1])["versions"] == ["2"]
        assert ask(server, "/v1/models")[0] == 200
        assert server.stop() == 0
    assert "open sesame" not in log.read_text()


def test_pages_of_other_sites_cannot_unload(server: Server) -> None:
    for headers in ({"Origin": "http://elsewhere.example"}, {"Origin": "http://[elsewhere"}, {"Host": "[::1"}):
        status, text = ask(server, "/v2/repository/models/photos/unload", b"", headers)
        assert (status, list(json.loads(text))) == (403, ["error"])


def test_a_name_that_leads_here_for_the_moment_cannot_unload(server: Server) -> None:
    headers = {"Host": "rebound.example:8000", "Origin": "http://rebound.example:8000"}
    status, text = ask(server, "/v2/repository/models/photos/unload", b"", headers)
    assert (status, list(json.loads(text))) == (403, ["error"])


def test_a_start_that_fails_in_a_way_nobody_foresaw_ends(untrained: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: object) -> None:
        raise PermissionError(13, "Permission denied", "weights.safetensors")

    monkeypatch.setattr(Repository, "load_all", fail)
    with pytest.raises(PermissionError):
        serve(Settings(port=0), {"photos": untrained.path}, announce=lambda *_: None)


def test_a_port_that_is_taken_is_refused_in_one_line(untrained: RunDir, server: Server) -> None:
    taken = str(server.address[1])
    command = [sys.executable, "-m", "lucidate", "serve", str(untrained.path), "--port", taken, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    reason = f"--port: expected one that is free, received {taken}, which is taken; choose another, or 0 for any"
    assert done.stderr == f"error: {reason}\n"


def test_what_cannot_be_served_is_refused_in_one_line(
    untrained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(untrained.path)
    unfinished, settings = tmp_path / "part", tmp_path / "serve.toml"
    shutil.copytree(untrained.path, unfinished)
    (unfinished / "weights.safetensors").unlink()
    settings.write_text("max_bacth = 8")
    for arguments, reason in (
        ([str(tmp_path / "none")], "expected a folder that holds a run"),
        ([str(unfinished)], "training did not end"),
        ([run, run], "each name once"),
        ([run, "--settings", str(settings)], "did you mean 'max_batch'"),
        ([run, "--set", "max_batch"], "expected KEY=VALUE"),
        ([run, "--views", "many"], "views: expected 'one' or 'recipe'"),
        ([run, "--set", 'api_keys=["a key "]'], "api_keys: expected keys of printable characters without spaces"),
        ([run, "--port", "70000"], "port: expected less than or equal to 65535"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["serve", *arguments])
        told = capsys.readouterr()
        assert (ended.value.code, told.out) == (2, "")
        assert told.err.startswith("error: ")
        assert told.err.count("\n") == 1
        assert reason in told.err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("port = ", "which does not parse"),
        ("port = 70000", "port: expected less than or equal to 65535"),
        ("admin_keys = [1]", "admin_keys"),
        (None, "No such file"),
    ],
)
def test_unreadable_settings_are_refused(tmp_path: Path, content: str | None, reason: str) -> None:
    file = tmp_path / "serve.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ServeError, match=reason):
        load_settings(file)


def test_settings_come_from_file_environment_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("port = 1\nmax_batch = 2\nqueue_images = 3")
    monkeypatch.setenv("LUCIDATE_SERVE_MAX_BATCH", "4")
    monkeypatch.setenv("LUCIDATE_SERVE_QUEUE_IMAGES", "5")
    found = load_settings(file, overrides={"queue_images": 6})
    assert (found.port, found.max_batch, found.queue_images) == (1, 4, 6)
    monkeypatch.setenv("LUCIDATE_SERVE_MAX_BACTH", "4")
    with pytest.raises(ServeError, match="did you mean 'LUCIDATE_SERVE_MAX_BATCH'"):
        load_settings(file)
