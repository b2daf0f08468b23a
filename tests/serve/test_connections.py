"""What stands between the sockets and the application: answers in one write, requests in turns, an orderly end."""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import Any

import pytest
import uvicorn
from servers import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lucidate.serve.http_protocol import AT_ONCE, OneWrite, http_protocol
from lucidate.serve.settings import Settings


class Transport:
    """Keeps what was written, and in how many pieces."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


HEAD, BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"{}"


def test_head_and_body_are_one_write_and_later_pieces_their_own() -> None:
    below = Transport()
    above: Any = OneWrite(below)  # type: ignore[arg-type]
    above.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    above.write(HEAD)
    above.write(BODY)
    above.write(b"more")
    assert below.written == [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + BODY, b"more"]


@pytest.mark.parametrize("body", [b"", None])
def test_a_head_without_a_body_is_not_kept(body: bytes | None) -> None:
    below = Transport()
    above: Any = OneWrite(below)  # type: ignore[arg-type]
    above.write(HEAD)
    if body is not None:
        above.write(body)  # an empty one, as of a 204
    above.close()
    assert b"".join(below.written) == HEAD
    assert above.is_closing()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_come_whole(server: Server, method: str) -> None:
    with socket.create_connection(server.address, timeout=30) as line:
        for _ in range(3):  # on one connection
            line.sendall(f"{method} /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = line.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n" if method == "HEAD" else b'\r\n\r\n{"live":true}')


class Cycle:
    def __init__(self, path: str) -> None:
        self.scope = {"path": path, "method": "GET"}
        self.transport = Transport()


def test_a_burst_begins_in_turns_and_health_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(
        HttpToolsProtocol,
        "_start_asgi_task",
        lambda _, cycle, app: begun.append(cycle.scope["path"]),  # noqa: ARG005
    )

    async def main() -> None:
        kind: Any = http_protocol(Settings())
        lines = [kind.__new__(kind) for _ in range(3)]  # connections share their turns
        busy = set(range(AT_ONCE))
        for line in lines:
            line.tasks, line.loop = busy, asyncio.get_running_loop()
        for number in range(3 * AT_ONCE):
            lines[number % 3]._start_asgi_task(Cycle(f"/{number}"), None)
        lines[0]._start_asgi_task(Cycle("/v2/health/live"), None)
        assert begun == ["/v2/health/live"]
        for turn in range(1, 4):
            await asyncio.sleep(0)
            assert begun[1:] == [f"/{number}" for number in range(turn * AT_ONCE)]
        busy.clear()
        lines[0]._start_asgi_task(Cycle("/last"), None)  # nothing waits any more
        assert begun[-1] == "/last"

    asyncio.run(main())


def test_uvicorn_is_inside_as_the_protocol_takes_it_to_be() -> None:
    """Another version may differ: this fails then, rather than a server under load."""
    assert list(inspect.signature(HttpToolsProtocol._start_asgi_task).parameters) == ["self", "cycle", "app"]
    assert not inspect.signature(HttpToolsProtocol._unset_keepalive_if_required).parameters.keys() - {"self"}
    config = uvicorn.Config(Cycle, http=http_protocol(Settings()), loop="asyncio", log_config=None)
    config.load()
    loop = asyncio.new_event_loop()
    protocol = HttpToolsProtocol(config, uvicorn.server.ServerState(), {}, loop)
    loop.close()
    for name in ("cycle", "pipeline", "parser", "tasks", "connections", "headers", "loop", "transport"):
        assert hasattr(protocol, name), name
    source = inspect.getsource(RequestResponseCycle.__init__)
    for name in ("scope", "transport", "message_event", "disconnected", "response_complete", "response_started"):
        assert f"self.{name} = " in source, name
    assert "self.more_body = " in source
    assert "self.keep_alive = " in source
