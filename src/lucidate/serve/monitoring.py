"""What the server tells its operator: a JSON line a request, figures for Prometheus at /metrics, the last minute's for
the page.

At /metrics requests have our names, models Triton's, so that its dashboards fit. Models are counted by their engines;
those counters are read when Prometheus asks, so that no request pays for it. Their lines are written here: the client
library would append `_total` to Triton's names.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from operator import attrgetter
from time import monotonic
from typing import Any

import numpy as np
import orjson
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from lucidate.serve.repository import ModelVersion

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COUNTERS = (  # name, what it counts, where an engine's statistics have it; nanoseconds become microseconds
    ("nv_inference_request_success", "Requests answered", "success.count"),
    ("nv_inference_request_failure", "Requests that failed after they were admitted", "fail.count"),
    ("nv_inference_count", "Images computed", "images"),
    ("nv_inference_exec_count", "Batches computed", "executions"),
    ("nv_inference_request_duration_us", "Time of answered requests in the engine, in microseconds", "success.ns"),
    ("nv_inference_queue_duration_us", "Time in the queue, in microseconds", "queue.ns"),
    ("nv_inference_compute_input_duration_us", "Time to put batches together, in microseconds", "compute_input.ns"),
    ("nv_inference_compute_infer_duration_us", "Time to compute, in microseconds", "compute_infer.ns"),
    ("nv_inference_compute_output_duration_us", "Time to hand answers over, in microseconds", "compute_output.ns"),
    ("lucidate_refused_total", "Requests refused since the queue was full", "refused"),
    ("lucidate_expired_total", "Requests whose time was over before they were computed", "expired"),
    ("lucidate_canceled_total", "Requests whose client went before the answer", "canceled"),
)
PENDING = "nv_inference_pending_request_count"
DRIFT = "lucidate_drift_psi"
CHANCE = "lucidate_drift_chance"
LAST = 60  # seconds that the page looks back
KEPT = 4096  # latencies, the newest

logger = logging.getLogger("lucidate.serve")


class JsonLines(logging.Formatter):
    """time, level, message; the fields of a request; a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        # What a client wrote may be no text at all; nothing of it ends a line.
        return orjson.dumps(line, default=str).decode()


def write_to_stderr() -> None:
    """Send the log, and what uvicorn has to say, to standard error. For the command line; twice is as once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("lucidate.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        known = logging.getLogger(name)
        known.handlers = [handler]
        known.propagate = False
        known.setLevel(level)


def log_request(fields: dict[str, Any], *, failure: BaseException | None = None) -> None:
    """Tell of one request. fields: id, client, method, path, status, ms … failure: of ours, with its traceback."""
    level = logging.ERROR if failure else logging.INFO
    if logger.isEnabledFor(level):
        # `logger.info` would walk the stack for the caller's line, which is always this one.
        record = logging.LogRecord(logger.name, level, __file__, 0, "request", (), None)
        record.fields = fields
        if failure is not None:
            record.exc_info = (type(failure), failure, failure.__traceback__)
        logger.handle(record)


class Metrics:
    """A registry of its own: several servers in one process do not meet in it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "lucidate_http_request_seconds",
            "Time from a request's headers to the end of its answer",
            ("route", "status"),
            buckets=SECONDS,
            registry=self._registry,
        )
        # `labels` checks and joins its arguments at each call: the few pairs there are, are kept.
        self._known: dict[tuple[str, int], Histogram] = {}

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request. route: the pattern of a path, never the path itself."""
        child = self._known.get((route, status))
        if child is None:
            child = self._known[route, status] = self._requests.labels(route, str(status))
        child.observe(seconds)

    def exposition(self, models: Iterable[ModelVersion]) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry) + "".join(f"{line}\n" for line in _of_models(list(models))).encode()


def _of_models(models: list[ModelVersion]) -> Iterator[str]:
    # Names of models need no escaping: the repository lets in letters, digits, ".", "_" and "-".
    labels = [(served, f'model="{served.name}",version="{served.version}"') for served in models]
    for name, text, where in COUNTERS:
        yield from _head(name, text, "counter")
        value, unit = attrgetter(where), 1000 if where.endswith(".ns") else 1
        for served, label in labels:
            yield f"{name}{{{label}}} {value(served.engine.statistics) // unit}"
    yield from _head(PENDING, "Images admitted and not yet answered", "gauge")
    for served, label in labels:
        yield f"{PENDING}{{{label}}} {served.engine.depth()}"
    reports = [(label, served.drift.report()) for served, label in labels]
    for name, key, text in (
        (DRIFT, "psi", "Population stability index of the last images, by signal"),
        (CHANCE, "chance", "What chance alone makes of that index, by signal: below it, nothing has drifted"),
    ):
        yield from _head(name, text, "gauge")
        for label, report in reports:
            for signal, found in report.items():
                if found["psi"] is not None:
                    yield f'{name}{{{label},signal="{signal}"}} {found[key]:.6g}'


def _head(name: str, text: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


class Recent:
    """Requests for predictions of the last minute: a count for each second, and the newest latencies.

    clock: seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._counts: deque[list[int]] = deque(maxlen=LAST + 1)  # [second, requests]
        self._latencies: deque[tuple[float, float]] = deque(maxlen=KEPT)  # (when, seconds)

    def add(self, seconds: float) -> None:
        """Note one request that was answered, and how long it took."""
        now = self._clock()
        second = int(now)
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1][1] += 1
        else:
            self._counts.append([second, 1])
        self._latencies.append((now, seconds))

    def report(self) -> dict[str, Any]:
        """requests_per_second, over a minute or the time since the start; latency_ms: p50 and p99, None without any."""
        now = self._clock()
        since = now - LAST
        count = sum(number for second, number in self._counts if second >= since)
        span = min(float(LAST), max(1.0, now - self._begun))
        latencies = [seconds for when, seconds in self._latencies if when >= since]
        p50, p99 = (np.percentile(latencies, (50, 99)) * 1000).tolist() if latencies else (None, None)
        return {"requests_per_second": count / span, "latency_ms": {"p50": p50, "p99": p99}}
