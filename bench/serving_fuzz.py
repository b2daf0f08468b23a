"""What a server makes of requests that no honest client sends: whether it lives, answers, and forgets them.

    python bench/serving_fuzz.py [--run RUN] [--seconds 600] [--seed 0] [--json]

Four parts, while a process of its own asks every 20 ms, by a new connection, whether the server lives:
    idle   nothing, for ten seconds;
    alone  each kind of large request (bench/fuzz_requests.py) once, of 600 kB and of 64 MB, on each of its routes;
    flood  200 large bad bodies a route, eight at a time;
    broken random requests, sixteen at a time, for the rest of the seconds.
Faults: an answer of status 500 or more, none at all, an error in another form, a server that has ended or that says
something else of a good image than before. Writes bench/results/serving_fuzz.json; exit status 1 where it found any.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import random
import re
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fuzz_requests import LARGE, OTHERS, TAKING, Body, Sent, broken, png, whole

HERE = Path(__file__).parent
RESULT = HERE / "results" / "serving_fuzz.json"
SIZES = {"600 kB": 600_000, "64 MB": 64_000_000}
BODIES = 200  # of a flood, a route
PATIENCE = 60.0  # seconds for an answer: a request's own end, 30 s by default, and as long again
IDLE = 10.0  # seconds before it all: what the machine's other work makes of the same question
PROBE = 0.02  # seconds between two questions whether the server lives
ERROR = re.compile(rb'\{"error":"[^\n]+"\}')
Address = tuple[str, int]


@dataclass
class Found:
    """statuses: 0 where the connection was closed without an answer. faults: in words. doing: (when, what) began."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    doing: list[tuple[float, str]] = field(default_factory=list)

    def ask(self, address: Address, sent: Sent, *, honest: bool) -> None:
        """Send a request, and note its answer. honest: as HTTP, so that there is to be one."""
        self.doing.append((time.perf_counter(), sent.name))
        try:
            status, headers, body = exchange(address, sent)
        except TimeoutError:
            self.faults.append(f"no answer: {sent.name}")
            return
        self.statuses[status] += 1
        if status >= 500 or (honest and not status):
            self.faults.append(f"status {status}: {sent.name}: {body[:300]!r}")
        elif status >= 400 and body and not (b"application/json" in headers and ERROR.fullmatch(body)):
            self.faults.append(f"another form of error: {sent.name}: {body[:300]!r}")


def exchange(address: Address, sent: Sent) -> tuple[int, bytes, bytes]:
    """Status, head and body of the first answer to what is sent; status 0 where there is none. Raises TimeoutError."""
    with socket.create_connection(address, timeout=PATIENCE) as line:
        with gone():  # answered before its end, and closed
            for piece in sent.pieces:
                if isinstance(piece, bytes):
                    line.sendall(piece)
                else:
                    time.sleep(piece)
            if sent.half:
                line.shutdown(socket.SHUT_WR)
        content = b""
        bodiless = b"".join(piece for piece in sent.pieces if isinstance(piece, bytes)).startswith(b"HEAD")
        with gone():
            while piece := line.recv(65_536):
                content += piece
                head, end, body = content.partition(b"\r\n\r\n")
                if end and head.startswith(b"HTTP/1.1 100"):
                    content = body
                    head, end, body = content.partition(b"\r\n\r\n")
                if end and (bodiless or len(body) >= _length(head)):
                    break
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head[9:12] or 0), head.lower(), b"" if bodiless else body[: _length(head)]


@contextmanager
def gone() -> Iterator[None]:
    """The other side may close the connection at any time; but it is not to be silent."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError:
        pass


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length: ")
    return int(rest.split(b"\r\n")[0]) if found else 0


def alone(found: Found, address: Address, *, model: str, sizes: dict[str, int], paths: Sequence[str]) -> None:
    """Each kind of large request on each route, one after the other."""
    for size, number in sizes.items():
        for kind, make in LARGE.items():
            made = make(number)
            for path in paths:
                found.ask(address, large(f"{kind}, {size}", path, made, model=model), honest=True)


def flood(
    found: Found,
    address: Address,
    path: str,
    *,
    model: str,
    bodies: int,
    size: int,
    kinds: Sequence[str] = tuple(LARGE),
) -> None:
    """Large bad bodies for one route, eight at a time."""
    made = [(f"{kind}, flood", LARGE[kind](size)) for kind in kinds]
    with ThreadPoolExecutor(8) as pool:
        turns = [made[number % len(made)] for number in range(bodies)]
        list(pool.map(lambda one: found.ask(address, large(one[0], path, one[1], model=model), honest=True), turns))


def large(name: str, path: str, body: Body, *, model: str) -> Sent:
    path = path.replace("MODEL", model)
    return Sent(f"{name}, {path}", (whole(path, *body),))


def at_random(found: Found, address: Address, *, model: str, seconds: float, seed: int) -> int:
    """Broken requests, sixteen at a time; how many."""
    end = time.perf_counter() + seconds

    def lane(number: int) -> int:
        chance, count = random.Random(f"{seed}-{number}"), 0
        while time.perf_counter() < end:
            sent = broken(chance, model=model)
            found.ask(address, Sent(f"{sent.name} ({seed}-{number}, {count})", sent.pieces, sent.half), honest=False)
            count += 1
        return count

    with ThreadPoolExecutor(16) as pool:
        return sum(pool.map(lane, range(16)))


@contextmanager
def watched(address: Address, found: Found) -> Iterator[dict[str, Any]]:
    """Fills, at its end, how long the server took to say that it lives."""
    result: dict[str, Any] = {}
    stop, told = multiprocessing.Event(), multiprocessing.Queue()
    probe = multiprocessing.Process(target=_probe, args=(address, stop, told))
    probe.start()
    try:
        yield result
    finally:
        stop.set()
        times: list[tuple[float, float]] = told.get(timeout=2 * PATIENCE)
        probe.join()
    taken = np.array([seconds for _, seconds in times]) * 1000
    result |= {"asked": len(times), "p50_ms": float(np.median(taken)), "p99_ms": float(np.percentile(taken, 99))}
    result |= {"p100_ms": float(taken.max()), "slowest": []}
    for when, seconds in sorted(times, key=lambda one: -one[1])[:5]:
        before = [what for begun, what in found.doing if begun < when + seconds]
        result["slowest"].append({"ms": 1000 * seconds, "during": before[-1] if before else ""})


def _probe(address: Address, stop: Any, told: Any) -> None:
    times = []
    while not stop.is_set():
        begun = time.perf_counter()
        seconds = PATIENCE
        with suppress(OSError), socket.create_connection(address, timeout=PATIENCE) as line:
            line.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            if line.recv(4096).startswith(b"HTTP/1.1 200"):
                seconds = time.perf_counter() - begun
        times.append((begun, seconds))
        time.sleep(PROBE)
    told.put(times)


def resident(process: int) -> float:
    """MiB that a process holds in memory."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError("no memory figure")


def well(address: Address, *, model: str) -> Any:
    """What the server says of a good image, by either protocol, but for the request's id; it has explained it, too."""
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png()).decode()]}
    said: list[Any] = []
    for path, body in (
        ("/v1/predict", png()),
        (f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}).encode()),
        (f"/v1/explain?model={model}", png()),
    ):
        status, _, answer = exchange(address, Sent("", (whole(path, {}, body),)))
        said += [status, {key: value for key, value in json.loads(answer).items() if key != "id"}]
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=HERE.parent / "models" / "cifar10-fastnet")
    parser.add_argument("--seconds", type=float, default=600.0, help="altogether; the first parts take their time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    arguments = parser.parse_args()
    from serving import Side, about, started  # beside this file

    found, begun = Found(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lucidate-bench-") as folder:
        run = Path(shutil.copytree(arguments.run, Path(folder) / "run"))
        command = [sys.executable, "-m", "lucidate", "serve", f"fuzzed={run}", "--port", "{port}"]
        command += ["--set", "access_log=false", "--set", "head_timeout=2", "--set", "body_timeout=2"]
        with started(Side("lucidate", command, "/v2/health/ready", "", [])) as (port, process):
            address = ("127.0.0.1", port)
            good = well(address, model="fuzzed")
            memory = {"start": resident(process.pid)}
            liveness: dict[str, Any] = {}
            with watched(address, found) as liveness["idle"]:
                time.sleep(IDLE)
            with watched(address, found) as liveness["alone"]:
                alone(found, address, model="fuzzed", sizes=SIZES, paths=(*TAKING, *OTHERS))
            memory["after_alone"] = resident(process.pid)
            with watched(address, found) as liveness["flood"]:
                for path in (*TAKING, *OTHERS):
                    flood(found, address, path, model="fuzzed", bodies=BODIES, size=8_000_000)
                    memory[f"after_flood_of_{path}"] = resident(process.pid)
            with watched(address, found) as liveness["broken"]:
                left = max(10.0, arguments.seconds - (time.perf_counter() - begun))
                count = at_random(found, address, model="fuzzed", seconds=left, seed=arguments.seed)
            memory["end"] = resident(process.pid)
            if process.poll() is not None or well(address, model="fuzzed") != good:
                found.faults.append("the server has ended, or answers otherwise than before")
    result = {
        **about(str(arguments.run)),
        "model": arguments.run.name,
        "seconds": time.perf_counter() - begun,
        "seed": arguments.seed,
        "requests": sum(found.statuses.values()),
        "broken_requests": count,
        "statuses": {str(status): number for status, number in sorted(found.statuses.items())},
        "faults": found.faults[:50],
        "liveness": liveness,
        "resident_mib": memory,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))
    sys.exit(1 if found.faults else 0)


if __name__ == "__main__":
    main()
