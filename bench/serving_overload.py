"""Twice the requests that a server can answer: what it answers, whether it still lives, what it forgets.

Called by `bench/serving.py --overload`; see there.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).with_name("results") / "serving_overload.json"
SECONDS = 30.0
CONNECTIONS = 1200  # more than the queue holds, or it would never be full
PROBE = 0.05  # seconds between two questions whether the server lives
GONE = 10_000  # clients that go before their answer


def overload(side: Any, *, as_json: bool, about: dict[str, Any]) -> None:
    """Measure and write the result. side: `serving.Side`."""
    import uvloop

    from serving import ask, started

    with started(side) as (port, process):
        capacity = ask(port, side.requests(), concurrency=64, seconds=5.0)["per_second"]
        found = uvloop.run(_flood(port, side, rate=2 * capacity))
        memory = [_resident(process.pid)]
        for _ in range(2):
            uvloop.run(_go(port, side, count=GONE // 2))
            memory.append(_resident(process.pid))
        still = ask(port, side.requests(), concurrency=16, seconds=2.0)
    result = {
        **about,
        "capacity_per_second": capacity,
        "seconds": SECONDS,
        **found,
        "resident_mib": {"after_overload": memory[0], "after_5000_gone": memory[1], "after_10000_gone": memory[2]},
        "per_second_afterwards": still["per_second"],
        "failed_afterwards": still["failed"],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result) if as_json else json.dumps({k: v for k, v in result.items() if k not in about}, indent=1))


class _Asker(asyncio.Protocol):
    """One connection: one request at a time, each with a number that its answer must carry."""

    def __init__(self, flood: _Flood) -> None:
        self.flood = flood
        self.number: str | None = None
        self.sent = 0.0
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.flood.free.append(self)

    def ask(self, number: int, request: bytes) -> None:
        self.number = f"ask-{number}"
        self.sent = time.perf_counter()
        self.transport.write(request.replace(b"\r\n\r\n", f"\r\nX-Request-ID: {self.number}\r\n\r\n".encode(), 1))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(headers[b"content-length"]):
            return
        self.buffer = b""
        flood = self.flood
        if self.number is None or headers.get(b"x-request-id") != self.number.encode():
            flood.wrong += 1  # an answer to nothing, or to another request
        status = int(head[9:12])
        flood.statuses[status] += 1
        if status == 429 and b"retry-after" not in headers:
            flood.wrong += 1
        flood.latencies[status].append(time.perf_counter() - self.sent)
        self.number = None
        flood.free.append(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        if self.number is not None:
            self.flood.lost += 1
        elif self in self.flood.free:
            self.flood.free.remove(self)


class _Flood:
    def __init__(self) -> None:
        self.free: list[_Asker] = []
        self.statuses: Counter[int] = Counter()
        self.latencies: dict[int, list[float]] = {200: [], 429: [], 503: []}
        self.wrong = self.lost = 0


async def _flood(port: int, side: Any, *, rate: float) -> dict[str, Any]:
    loop, flood = asyncio.get_running_loop(), _Flood()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Asker(flood), "127.0.0.1", port)
    requests = side.requests()
    stop, found = multiprocessing.Event(), multiprocessing.Queue()
    probing = multiprocessing.Process(target=_probe, args=(port, stop, found))
    probing.start()
    sent, begun, missed = 0, time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < SECONDS:
        for _ in range(int(passed * rate) - sent - missed):
            if not flood.free:
                missed += 1  # every connection waits: the generator is at its end, not the server
                continue
            flood.free.pop().ask(sent, requests[sent % len(requests)])
            sent += 1
        await asyncio.sleep(0.002)
    end = time.perf_counter() + 30
    while sum(flood.statuses.values()) < sent - flood.lost and time.perf_counter() < end:
        await asyncio.sleep(0.05)
    stop.set()
    times: list[float] = found.get(timeout=60)
    probing.join()
    answered = sum(flood.statuses.values())
    return {
        "asked_per_second": sent / SECONDS,
        "not_asked": missed,
        "statuses": {str(status): count for status, count in sorted(flood.statuses.items())},
        "answered_per_second": flood.statuses[200] / SECONDS,
        "lost": sent - answered,
        "answered_wrongly_or_twice": flood.wrong,
        "p99_ms": {str(k): float(np.percentile(v, 99)) * 1000 for k, v in flood.latencies.items() if v},
        "liveness": {
            "asked": len(times),
            "p99_ms": float(np.percentile(times, 99)) * 1000,
            "max_ms": max(times) * 1000,
        },
    }


def _probe(port: int, stop: Any, found: Any) -> None:
    """Ask whether the server lives, by new connections, as an orchestrator does; in a process that has nothing else."""
    times = []
    while not stop.is_set():
        begun = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            line.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = line.recv(4096)
        times.append(time.perf_counter() - begun)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        time.sleep(PROBE)
    found.put(times)


async def _go(port: int, side: Any, *, count: int) -> None:
    """Clients that go: half of them in the middle of their request, half before its answer."""
    requests = side.requests()

    async def one(number: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        request = requests[number % len(requests)]
        writer.write(request if number % 2 else request[: len(request) // 2])
        await writer.drain()
        if number % 4 < 2:
            await asyncio.sleep(0.002)
        writer.transport.abort()

    for start in range(0, count, 50):
        await asyncio.gather(*(one(number) for number in range(start, start + 50)))


def _resident(process: int) -> float:
    """MiB."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError("no memory figure")
