"""What stands between the sockets and the application: answers in one write, requests in turns, an orderly end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from servers import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lucidate.serve.scheduling import AT_ONCE, in_turns
from lucidate.serve.write_coalescing import _Holding


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
    above: Any = _Holding(below)  # type: ignore[arg-type]
    above.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    above.write(HEAD)
    above.write(BODY)
    above.write(b"more")
    assert below.written == [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + BODY, b"more"]


@pytest.mark.parametrize("body", [b"", None])
def test_a_head_without_a_body_is_not_kept(body: bytes | None) -> None:
    below = Transport()
    above: Any = _Holding(below)  # type: ignore[arg-type]
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
        self.scope = {"path": path}


class Below(HttpToolsProtocol):
    """A protocol that notes which requests begin."""

    begun: list[str]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ARG002
        self.begun.append(cycle.scope["path"])


def test_a_burst_begins_in_turns_and_health_at_once() -> None:
    begun: list[str] = []

    async def main() -> None:
        busy = {"tasks": set(range(AT_ONCE)), "begun": begun}
        kind: Any = in_turns(type("Protocol", (Below,), busy), asyncio.get_running_loop())
        lines = [kind.__new__(kind) for _ in range(3)]  # connections share their turns
        for number in range(3 * AT_ONCE):
            lines[number % 3]._start_asgi_task(Cycle(f"/{number}"), None)
        lines[0]._start_asgi_task(Cycle("/v2/health/live"), None)
        assert begun == ["/v2/health/live"]
        for turn in range(1, 4):
            await asyncio.sleep(0)
            assert begun[1:] == [f"/{number}" for number in range(turn * AT_ONCE)]
        lines[0].tasks.clear()
        lines[0]._start_asgi_task(Cycle("/last"), None)  # nothing waits any more
        assert begun[-1] == "/last"

    asyncio.run(main())
