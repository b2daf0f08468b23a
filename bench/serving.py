"""Requests a second and their latency: ours against LitServe and a plain FastAPI server, taking turns.

    python bench/serving.py [--data SRC] [--litserve-python PATH] [--turns 3] [--seconds 5] [--json]
    python bench/serving.py --overload [--data SRC] [--json]

The compact CNN for 32 pixels, the same images as PNG bytes for everybody, 1, 16 and 64 connections that each ask again
as soon as they are answered, by a process of its own (bench/http_load.py) on the same machine. A turn starts one server
after the other, alone; figures are medians of the turns. Ours is asked by its API for people (PNG as the body: decoded,
answered in words with calibrated probabilities, watched for drift) and by the Open Inference Protocol (pixels as
bytes). LitServe, around the same ONNX graph, once with ONNX Runtime's defaults and once with our session's options,
with and without batches; the plain server runs torch. --litserve-python: an interpreter that has litserve and
onnxruntime; else this one, or none. Writes bench/results/serving.json.

--overload: up to twice the requests that the server can answer, for half a minute; then 10,000 clients that go before
their answer. Writes bench/results/serving_overload.json.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
RESULT = HERE / "results" / "serving.json"
CONCURRENCY = (1, 16, 64)
IMAGES = 64
SIZE = 32


@dataclass(frozen=True)
class Side:
    """A server to measure: how it is started, and what it is asked. {port} stands for its port."""

    name: str
    command: list[str]
    health: str
    path: str
    bodies: list[bytes]
    headers: dict[str, str] = field(default_factory=dict)

    def requests(self) -> list[bytes]:
        return [request("POST", self.path, body, self.headers) for body in self.bodies]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="SRC of the images and of the run that is made")
    parser.add_argument("--litserve-python", type=Path, help="an interpreter that has litserve")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, after one of warm-up")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    arguments = parser.parse_args()
    known = about(arguments.data)
    with tempfile.TemporaryDirectory(prefix="lucidate-bench-") as folder:
        run = make_run(arguments.data, Path(folder) / "compact")
        pngs, pixels = make_images(arguments.data)
        if arguments.overload:
            from serving_overload import overload  # beside this file

            overload(ours(run, pngs, pixels)[0], as_json=arguments.json, about=known)
            return
        sides = [*ours(run, pngs, pixels), *peers(run, pngs, arguments.litserve_python)]
        measured = compare(sides, turns=arguments.turns, seconds=arguments.seconds)
    result = {**known, "turns": arguments.turns, "seconds": arguments.seconds, "sides": measured}
    result["ratios_at_16"] = ratios(measured)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(result))
        return
    for name, levels in measured.items():
        for level, found in levels.items():
            print(
                f"{name:24} {level:>3} connections: {found['per_second']:7,.0f} a second, "
                f"p50 {found['p50_ms']:6.2f} ms, p99 {found['p99_ms']:7.2f} ms"
            )
    print(", ".join(f"{value:.2f} × {name}" for name, value in result["ratios_at_16"].items()), "at 16 connections")


def make_run(data: str, folder: Path) -> Path:
    """A compact CNN for 32 pixels, trained for one epoch: speed does not depend on what it learned."""
    settings = ("train.epochs=1", "data.train_size=1000", f"data.image_size={SIZE}")
    command = [sys.executable, "-m", "lucidate", "train", "compact", "--data", data, "--out", str(folder)]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def make_images(data: str) -> tuple[list[bytes], list[bytes]]:
    """The same images as PNG files, and as pixels."""
    from lucidate.data.pack import open_pack

    pack = open_pack(data, image_size=SIZE)
    pngs = []
    chosen = np.asarray(pack.images[:IMAGES])
    for image in chosen:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        pngs.append(file.getvalue())
    return pngs, [image.tobytes() for image in chosen]


def ours(run: Path, pngs: list[bytes], pixels: list[bytes]) -> list[Side]:
    command = [sys.executable, "-m", "lucidate", "serve", f"compact={run}", "--port", "{port}"]
    command += ["--set", "access_log=false"]  # as all sides: nobody's answers wait for a log
    png = {"Content-Type": "image/png"}
    raw = {"Inference-Header-Content-Length": "0"}
    return [
        Side("lucidate", command, "/v2/health/ready", "/v1/predict", pngs, png),
        Side("lucidate_v2_pixels", command, "/v2/health/ready", "/v2/models/compact/infer", pixels, raw),
    ]


def peers(run: Path, pngs: list[bytes], python: Path | None) -> list[Side]:
    plain = [sys.executable, str(HERE / "serving_plain.py"), "--run", str(run), "--port", "{port}"]
    sides = [Side("fastapi_torch", plain, "/health", "/predict", pngs, {"Content-Type": "image/png"})]
    if python is None and importlib.util.find_spec("litserve") is None:
        print("LitServe is left out: no interpreter that has it (--litserve-python)", file=sys.stderr)
        return sides
    graph = run / "export" / "serve.onnx"
    script = [str(python or sys.executable), str(HERE / "serving_litserve.py"), "--graph", str(graph)]
    bodies = [json.dumps({"image": base64.b64encode(png).decode()}).encode() for png in pngs]
    for name, options in {
        "litserve": [],
        "litserve_batches": ["--batch", "16"],
        "litserve_our_session": ["--threads", "1"],
        "litserve_our_session_batches": ["--threads", "1", "--batch", "16"],
    }.items():
        command = [*script, *options, "--port", "{port}"]
        sides.append(Side(name, command, "/health", "/predict", bodies, {"Content-Type": "application/json"}))
    return sides


def compare(sides: list[Side], *, turns: int, seconds: float) -> dict[str, dict[str, Any]]:
    """By side and concurrency, medians over turns; `every` has each turn's requests a second."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for _ in range(turns):
        for side in sides:
            with started(side) as (port, _process):
                for level in CONCURRENCY:
                    measured = ask(port, side.requests(), concurrency=level, seconds=seconds)
                    found.setdefault(side.name, {}).setdefault(level, []).append(measured)
    return {
        name: {str(level): summary(measured) for level, measured in levels.items()} for name, levels in found.items()
    }


def summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    every = [one["per_second"] for one in measured]
    medians = {key: float(np.median([one[key] for one in measured])) for key in ("per_second", "p50_ms", "p99_ms")}
    return {**medians, "every": every, "failed": sum(one["failed"] for one in measured)}


def ratios(measured: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times as many requests a second we answer, at 16 connections, both sides decoding PNG."""
    own = measured["lucidate"]["16"]["per_second"]
    return {name: own / levels["16"]["per_second"] for name, levels in measured.items() if "lucidate" not in name}


def ask(port: int, requests: list[bytes], *, concurrency: int, seconds: float) -> dict[str, Any]:
    spec = {
        "host": "127.0.0.1",
        "port": port,
        "requests": [base64.b64encode(one).decode() for one in requests],
        "concurrency": concurrency,
        "seconds": seconds,
        "warm_up": 1.0,
    }
    script = str(HERE / "http_load.py")
    done = subprocess.run([sys.executable, script], input=json.dumps(spec), capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    milliseconds = np.array(told["latencies"]) * 1000
    good = told["statuses"].get("200", 0)
    return {
        "per_second": good / seconds,
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "failed": told["broken"] + sum(told["statuses"].values()) - good,
    }


@contextlib.contextmanager
def started(side: Side) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A side's server, answering, on a port of its own; it and what it started are ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [part.replace("{port}", str(port)) for part in side.command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, process_group=0)
        try:
            end = time.monotonic() + 120
            while not healthy(port, side.health):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise RuntimeError(f"{side.name} did not start: {log.read().decode()[-2000:]}")
                time.sleep(0.1)
            yield port, process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def healthy(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            line.sendall(request("GET", path, b"", {"Connection": "close"}))
            return line.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def request(method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def about(data: str) -> dict[str, Any]:
    from importlib.metadata import version

    from lucidate.core import machine

    packages = ("fastapi", "uvicorn", "uvloop", "httptools", "onnxruntime")
    return {
        "model": "compact",
        "data": Path(data).name,
        "hardware": machine.hardware(),
        "versions": {**machine.versions(), **{name: version(name) for name in packages}},
        "commit": machine.commit(),
        "load_average": os.getloadavg()[0],  # of other work too: before the first measurement
    }


if __name__ == "__main__":
    main()
