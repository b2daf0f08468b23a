"""Ask an HTTP server as fast as it answers, from some number of connections that are kept open.

    python bench/http_load.py < SPEC.json > RESULT.json

SPEC: {"host", "port", "requests": [whole HTTP/1.1 requests in base64], "concurrency", "seconds", "warm_up"}. Each
connection sends its next request when it has the answer to the one before. A process of its own, and no HTTP library:
the machine's cores are for the server. RESULT: latencies in seconds of what was answered after the warm-up, how often
each status came, connections that broke.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections import Counter
from typing import Any


class Asker(asyncio.Protocol):
    """One connection: asks, reads the answer by its Content-Length, asks again until the end."""

    def __init__(self, load: Load, first: int) -> None:
        self.load = load
        self.next = first
        self.buffer = b""
        self.sent = 0.0
        self.waiting = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        assert self.transport is not None
        self.sent = time.perf_counter()
        if self.sent >= self.load.end:
            self.transport.close()
            return
        self.waiting = True
        self.transport.write(self.load.requests[self.next % len(self.load.requests)])
        self.next += 1

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        stop = lower.find(b"\r\n", start)
        length = int(lower[start : stop if stop >= 0 else None])
        if len(body) < length:
            return
        assert len(body) == length, "more than one answer to one request"
        self.waiting = False
        self.buffer = b""
        now = time.perf_counter()
        self.load.answered(int(head[9:12]), now - self.sent, now)
        self.ask()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        if self.waiting:
            self.load.broken += 1
        self.load.closed()


class Load:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.requests = [base64.b64decode(text) for text in spec["requests"]]
        self.open = spec["concurrency"]
        self.begin = time.perf_counter() + spec["warm_up"]
        self.end = self.begin + spec["seconds"]
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self.done = asyncio.get_running_loop().create_future()

    def answered(self, status: int, seconds: float, now: float) -> None:
        if now >= self.begin:
            self.statuses[status] += 1
            self.latencies.append(seconds)

    def closed(self) -> None:
        self.open -= 1
        if not self.open:
            self.done.set_result(None)


async def main(spec: dict[str, Any]) -> dict[str, Any]:
    load, loop = Load(spec), asyncio.get_running_loop()
    for number in range(spec["concurrency"]):
        first = number * len(load.requests) // spec["concurrency"]
        await loop.create_connection(lambda first=first: Asker(load, first), spec["host"], spec["port"])
    await load.done
    return {"latencies": load.latencies, "statuses": dict(load.statuses), "broken": load.broken}


if __name__ == "__main__":
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    json.dump(run(main(json.load(sys.stdin))), sys.stdout)
