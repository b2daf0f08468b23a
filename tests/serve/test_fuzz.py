"""The fuzz of `bench/serving_fuzz.py`, a minute of it, on a server as it is started."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
from servers import Server, served

from bench_scripts import BENCH, script
from lucidate.core.run import RunDir

pytestmark = pytest.mark.slow

MIB = 100  # that may stay; it is what the system keeps of pages, not of requests
SLOW = 2000.0  # milliseconds; on a quiet machine it is under 200, and before requests were bounded it was 40,000
OPTIONS = ("--set", "access_log=false", "--set", "head_timeout=1", "--set", "body_timeout=1")


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        yield script("serving_fuzz")


@pytest.fixture(scope="module")
def server(untrained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(untrained.path, log=tmp_path_factory.mktemp("fuzz") / "log", options=OPTIONS) as started:
        yield started


@pytest.fixture(autouse=True)
def lives_and_forgets(bench: ModuleType, server: Server) -> Iterator[None]:
    """A good image has the same answer afterwards, meanwhile it always lived, and nothing is kept."""
    good, memory = bench.well(server.address, model="photos"), bench.resident(server.process.pid)
    with bench.watched(server.address, bench.Found()) as liveness:
        yield
    assert server.process.poll() is None
    assert bench.well(server.address, model="photos") == good
    assert bench.resident(server.process.pid) < memory + MIB
    assert liveness["p100_ms"] < SLOW
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("size", ["600 kB", "64 MB"])
def test_no_large_request_stops_the_others(size: str, bench: ModuleType, server: Server) -> None:
    found = bench.Found()
    paths = (*bench.TAKING, *bench.OTHERS) if size == "600 kB" else bench.TAKING[:3]
    bench.alone(found, server.address, model="photos", sizes={size: bench.SIZES[size]}, paths=paths)
    assert found.faults == []
    assert sum(found.statuses.values()) == len(bench.LARGE) * len(paths)


def test_a_flood_of_large_bad_bodies_is_forgotten(bench: ModuleType, server: Server) -> None:
    found = bench.Found()
    for path in (*bench.TAKING, "/v1/models", "/healthz", "/nowhere"):
        bench.flood(found, server.address, path, model="photos", bodies=bench.BODIES, size=2_000_000)
    assert found.faults == []
    assert found.statuses[400] + found.statuses[413] + found.statuses[415] > bench.BODIES


def test_broken_requests_are_answered_or_closed(bench: ModuleType, server: Server) -> None:
    found = bench.Found()
    count = bench.at_random(found, server.address, model="photos", seconds=15, seed=0)
    assert found.faults == []
    assert count > 200
    assert {200, 400, 404, 405, 413, 415} <= set(found.statuses)
