"""Requests that no honest client sends, over real sockets. Numbers are those of the list of faults to survive."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import onnx
import pytest
from live_server import Line, Reply, Running, encoded, expected, photo, running, wait_until
from onnx import TensorProto, helper
from pydantic import SecretStr

from lucidate.core.errors import LucidateError
from lucidate.core.run import RunDir
from lucidate.models.onnx_session import open_session
from lucidate.serve import repository as repositories
from lucidate.serve.repository import ModelVersion
from lucidate.serve.settings import Settings

PHOTO = photo(1)
PNG = encoded(PHOTO)
POST = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
SETTINGS = Settings(
    access_log=True,
    max_batch=8,
    queue_images=64,
    head_timeout=0.5,
    body_timeout=0.5,
    body_bytes=2_000_000,
    bodies_bytes=6_000_000,
    max_images=64,
    connections=40,
)


@pytest.fixture(scope="module")
def server(untrained: RunDir) -> Iterator[Running]:
    with running(SETTINGS, {"one": untrained}) as server:
        yield server


@pytest.fixture(autouse=True)
def right_afterwards(server: Running) -> Iterator[None]:
    """Whatever a test has done: the server knows a good image still, and has let go of everything."""
    yield
    reply = server.predict(PNG)
    known = server.truth(PHOTO)
    assert reply.best["index"] == known.argmax()
    assert reply.best["probability"] == pytest.approx(known.max(), abs=1e-4)
    assert not [line for line in server.log_lines if line["failure"]]
    wait_until(lambda: server.repository.get().engine.depth() == 0)


def whole(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return POST + f"Content-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def test_the_line_works(server: Running) -> None:
    """Two requests on one connection, as these tests send them."""
    with server.connection() as line:
        for _ in range(2):
            line.send(whole(PNG))
            assert line.reply().status == 200


# 21 Heads


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X-Large: " + b"a" * 2_000_000 + b"\r\n", id="21-value-of-2-mb"),
        pytest.param(b"".join(b"X-%d: %s\r\n" % (n, b"a" * 900) for n in range(90)), id="21-many-bytes"),
        pytest.param(b"".join(b"X-%d: a\r\n" % n for n in range(2_000)), id="21-many-lines"),
    ],
)
def test_heads_that_are_too_large(head: bytes, server: Running) -> None:
    with server.connection() as line:
        try:
            line.send(POST + head + b"Content-Length: 0\r\n\r\n")
            reply = line.reply()
        except (ConnectionResetError, BrokenPipeError, EOFError):
            return  # the answer may be lost where we still send
        assert reply.status == 431
        assert reply.error.startswith("headers: expected at most")
        assert line.closed()


def test_21_a_head_just_small_enough(server: Running) -> None:
    assert server.predict(PNG, X_Large="a" * 60_000).status == 200
    with server.connection() as line:
        line.send(POST + b"X-Large: " + b"a" * 66_000 + b"\r\n\r\n")
        assert line.reply().status == 431


def test_21_a_path_that_is_too_long(server: Running) -> None:
    with server.connection() as line:
        line.send(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert line.reply().status == 431


# 22, 23 Slowness


@pytest.mark.parametrize(
    "start", [b"", b"P", POST, POST + b"Content-Le"], ids=["22-nothing", "22-a-letter", "22-a-line", "22-half-a-header"]
)
def test_heads_that_never_end(start: bytes, server: Running) -> None:
    with server.connection() as line:
        line.send(start)
        if start:
            assert line.reply().status == 408
        assert line.closed()


def test_22_heads_in_drops_have_no_more_time(server: Running) -> None:
    with server.connection() as line:
        begun = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(200):
                line.send(b"X")
                time.sleep(0.05)
        assert time.monotonic() - begun < 8


def test_22_empty_lines_are_no_request(server: Running) -> None:
    with server.connection() as line:
        line.send(whole(PNG))
        assert line.reply().status == 200
        line.send(b"\r\n")
        assert line.closed()


def test_22_a_body_that_nobody_waits_for(server: Running) -> None:
    """The answer is there before the body: the rest of it may come, but not for ever."""
    with server.connection() as line:
        line.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        assert line.reply().status == 413
        with pytest.raises(OSError):
            for _ in range(200):
                line.send(b"X")
                time.sleep(0.05)


@pytest.mark.parametrize(
    "start",
    [whole(PNG)[:-1], POST + b"Content-Length: 9\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"],
    ids=["23-a-byte-is-missing", "23-nothing-comes", "23-half-a-chunk"],
)
def test_bodies_that_stall(start: bytes, server: Running) -> None:
    with server.connection() as line:
        line.send(start)
        reply = line.reply()
        assert reply.status == 408
        assert reply.error.startswith("body: ")
        assert line.closed()


def test_23_a_steady_body_has_its_time(server: Running) -> None:
    """More than body_timeout altogether, at more than 8 KiB a second."""
    content = PNG + bytes(30_000)
    with server.connection() as line:
        line.send(whole(content)[: -len(content)])
        for start in range(0, len(content), 3_000):
            line.send(content[start : start + 3_000])
            time.sleep(0.1)
        assert line.reply().best["index"] == server.truth(PHOTO).argmax()


# 24, 25 Clients that go


def test_24_clients_that_go_in_mid_upload(server: Running) -> None:
    for number in range(20):
        with server.connection() as line:
            line.send(whole(PNG, f"X-Request-ID: going-{number}")[:-9])
    for number in range(20):
        assert server.said(f"going-{number}")["status"] == 499


class Gate:
    """A session that waits until it may compute, or that fails."""

    def __init__(self, server: Running) -> None:
        self.engine = server.repository.get().engine
        self.open = threading.Event()
        self.calls = 0
        self.failing = False
        self.real: Any = None


@pytest.fixture
def gate(server: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The engine of a version of its own, behind a gate."""
    real = repositories.open_graph
    made: list[Gate] = []

    class Behind:
        def __init__(self, session: Any) -> None:
            self.session = session
            self.ready = False

        def run(self, names: Any, feed: Any) -> Any:
            if made:
                made[0].calls += 1
                if made[0].failing:
                    raise RuntimeError("inside /srv/secret.py")
                assert made[0].open.wait(20)
            return self.session.run(names, feed)

    monkeypatch.setattr(repositories, "open_graph", lambda *a, **k: Behind(real(*a, **k)))
    _reload(server)
    made.append(Gate(server))
    yield made[0]
    made[0].open.set()
    made[0].failing = False
    monkeypatch.undo()
    _reload(server)


def _reload(server: Running) -> None:
    """A new version of the same files."""
    server.repository._served.clear()
    reply = server.ask("/v2/repository/models/one/load", b"")
    assert reply.status == 200, reply


def test_25_clients_that_go_while_they_wait(server: Running, gate: Gate) -> None:
    lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6)]
    for number, raw in enumerate(lines):
        raw.sendall(whole(PNG, f"X-Request-ID: waiting-{number}"))
    wait_until(lambda: gate.engine.depth() == 6)
    for raw in lines[1:]:
        raw.close()
    wait_until(lambda: gate.engine.depth() == 1)  # they left the queue, though nothing was computed
    gate.open.set()
    assert Line(lines[0]).reply().status == 200
    lines[0].close()
    assert {server.said(f"waiting-{number}")["status"] for number in range(1, 6)} == {499}
    assert gate.engine.statistics.canceled == 5
    assert gate.calls <= 2


def test_41_an_engine_that_fails_fails_its_requests_and_no_more(server: Running, gate: Gate) -> None:
    gate.failing = True
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: server.predict(PNG), range(8)))
    assert {reply.status for reply in replies} == {500}
    assert {reply.error for reply in replies} == {"the model failed on this request"}
    gate.failing = False
    gate.open.set()
    assert server.predict(PNG).status == 200


def test_a_full_queue_says_when_to_come_again(server: Running, gate: Gate) -> None:
    body = json.dumps({"images": [base64.b64encode(PNG).decode()] * 60}).encode()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.predict, body, Content_Type="application/json")
        wait_until(lambda: gate.engine.depth() == 60)
        second = server.predict(body, Content_Type="application/json")
        assert second.status == 429
        assert int(second.headers["retry-after"]) >= 1
        assert "queue" in second.error
        gate.open.set()
        assert first.result().status == 200


# 26 - 29 Bodies


def chunked(content: bytes, size: int) -> bytes:
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_26_a_body_of_single_bytes(server: Running) -> None:
    with server.connection() as line:
        line.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(PNG, 1))
        assert line.reply().best["index"] == server.truth(PHOTO).argmax()


@pytest.mark.parametrize("size", [7, 50_000], ids=["26-small-chunks", "26-large-chunks"])
def test_a_flood_of_chunks(size: int, server: Running) -> None:
    with server.connection() as line:
        line.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = b"%x\r\n%s\r\n" % (size, b"a" * size) * (200_000 // size)
        for _ in range(15):
            line.send(piece)
        reply = line.reply()
        assert reply.status == 413
        assert reply.error == "body: expected at most 2,000,000 bytes, received more"
        line.send(b"0\r\n\r\n" + whole(PNG))  # the rest was read and forgotten
        assert line.reply().status == 200


def test_26_bodies_that_are_too_much_together(server: Running) -> None:
    lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
    for raw in lines:
        raw.sendall(whole(bytes(1_900_000))[:-1])
    replies = [Line(raw).reply() for raw in lines]  # the fourth did not fit; the others stalled
    assert sorted(reply.status for reply in replies) == [408, 408, 408, 429]
    for raw in lines:
        raw.close()


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(POST + b"Content-Length: -1\r\n\r\n", id="27-negative"),
        pytest.param(POST + b"Content-Length: 9\r\nContent-Length: 10\r\n\r\n", id="27-two"),
        pytest.param(POST + b"Content-Length: 1 1\r\n\r\n", id="27-no-number"),
        pytest.param(POST + b"Content-Length: 99999999999999999999999\r\n\r\n", id="27-overflow"),
        pytest.param(POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="27-both"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="27-bad-chunk"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", id="27-chunk-overflow"),
        pytest.param(POST + b"X: a\nb\0c\r\n\r\n", id="27-nul-in-a-header"),
        pytest.param(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", id="27-tls"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="27-http-2"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", id="27-path-of-other-bytes"),
        pytest.param(b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", id="27-no-url"),
    ],
)
def test_what_is_no_http(request_: bytes, server: Running) -> None:
    with server.connection() as line:
        line.send(request_)
        reply = line.reply()
        assert reply.status in (400, 413), reply
        assert reply.error


@pytest.mark.parametrize("method", ["TRACE", "DELETE", "OPTIONS", "PUT", "PATCH", "PROPFIND"])
def test_other_methods(method: str, server: Running) -> None:
    reply = server.ask("/v1/predict", method=method)
    assert reply.status == 405
    assert reply.error
    assert server.ask("/v1/predict", method="HEAD").status == 405


def test_connect_and_upgrades(server: Running) -> None:
    with server.connection() as line:
        line.send(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert line.reply().status in (400, 404, 405)
    with server.connection() as line:
        line.send(
            b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert line.reply().status == 200
        assert line.closed()


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        pytest.param("gzip", gzip.compress(PNG), 200, id="28-gzip"),
        pytest.param("deflate", zlib.compress(PNG), 200, id="28-deflate"),
        pytest.param("identity", PNG, 200, id="28-identity"),
        pytest.param("gzip", gzip.compress(bytes(50_000_000)), 413, id="28-gzip-bomb"),
        pytest.param("deflate", zlib.compress(bytes(50_000_000)), 413, id="28-deflate-bomb"),
        pytest.param("gzip", PNG, 400, id="28-no-gzip"),
        pytest.param("gzip", gzip.compress(PNG)[:-9], 400, id="28-half-a-gzip"),
        pytest.param("gzip", b"", 400, id="28-empty-gzip"),
        pytest.param("br", PNG, 415, id="28-brotli"),
        pytest.param("gzip, gzip", gzip.compress(gzip.compress(PNG)), 415, id="28-twice"),
    ],
)
def test_compressed_bodies(coding: str, body: bytes, status: int, server: Running) -> None:
    reply = server.predict(body, Content_Encoding=coding)
    assert reply.status == status
    if status == 200:
        assert reply.best["index"] == server.truth(PHOTO).argmax()
    else:
        assert reply.error


def form(parts: int, *, name: str = 'name="x"; filename="x"', content: bytes = b"", boundary: str = "b") -> bytes:
    part = f"--{boundary}\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode() + content + b"\r\n"
    return part * parts + f"--{boundary}--\r\n".encode()


@pytest.mark.parametrize(
    ("kind", "body", "status", "reason"),
    [
        pytest.param("b", form(10_000), 413, "at most 64", id="29-ten-thousand-files"),
        pytest.param("b", form(10_000, name='name="x"'), 400, "no files", id="29-ten-thousand-fields"),
        pytest.param("b" * 60_000, form(1, boundary="b" * 60_000), 400, "malformed", id="29-huge-boundary"),
        pytest.param("", form(1), 400, "no boundary", id="29-no-boundary"),
        pytest.param("b", b"", 400, "part of one", id="29-nothing"),
        pytest.param("b", form(1)[:-20], 400, "part of one", id="29-half-a-form"),
        pytest.param("b", b"a" * 100_000, 400, "malformed", id="29-no-form"),
        pytest.param("b", form(1, name='name="x"', content=PNG), 400, "no file in it", id="29-a-field-is-no-file"),
        pytest.param("b", form(1, name='filename="' + "x" * 50_000 + '"'), 400, "malformed", id="29-huge-part-header"),
        pytest.param("b", b"\r\n" * 500_000 + form(1), 400, "empty file", id="29-a-long-preamble"),
    ],
)
def test_forms(kind: str, body: bytes, status: int, reason: str, server: Running) -> None:
    reply = server.predict(
        body, Content_Type=f"multipart/form-data; boundary={kind}" if kind else "multipart/form-data"
    )
    assert reply.status == status
    assert reason in reply.error


# 30 - 37 What is asked


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        pytest.param("[" * 100_000, 400, "expected JSON", id="30-depth"),
        pytest.param('{"image":' * 100_000, 400, "expected JSON", id="30-depth-of-objects"),
        pytest.param('{"image": "' + "\\u0000" * 9 + '"}', 400, "base64", id="30-nul"),
        pytest.param("", 400, "expected JSON", id="30-empty"),
        pytest.param("null", 400, "other JSON", id="30-null"),
        pytest.param("{}", 400, "other JSON", id="30-nothing-in-it"),
        pytest.param('{"image": "", "url": ""}', 400, "other JSON", id="30-more-in-it"),
        pytest.param('{"images": []}', 400, "at least one", id="30-none"),
        pytest.param('{"images": {"0": "a"}}', 400, "at least one", id="30-an-object"),
        pytest.param('{"image": 7}', 400, "no text", id="30-a-number"),
        pytest.param('{"image": NaN}', 400, "expected JSON", id="35-nan"),
        pytest.param(json.dumps({"images": ["AAAA"] * 10_000}), 413, "at most 64", id="32-ten-thousand-images"),
        pytest.param('{"image": "a$b="}', 400, "expected base64", id="33-invalid"),
        pytest.param('{"image": "AAA"}', 400, "expected base64", id="33-padding"),
        pytest.param('{"image": "ü"}', 400, "expected base64", id="33-umlaut"),
        pytest.param('{"image": "data:image/png,abc"}', 400, "data URL", id="33-data-url-of-text"),
        pytest.param('{"image": "http://169.254.169.254/latest/"}', 400, "never fetched", id="34-http"),
        pytest.param('{"image": "file:///etc/passwd"}', 400, "never fetched", id="34-file"),
        pytest.param('{"images": ["HTTPS://x/a.png"]}', 400, "never fetched", id="34-in-a-list"),
        pytest.param('{"image": "/etc/passwd"}', 400, "base64", id="34-a-path"),
    ],
)
def test_json(content: str, status: int, reason: str, server: Running) -> None:
    reply = server.predict(content.encode(), Content_Type="application/json; charset=utf-8")
    assert reply.status == status
    assert reason in reply.error


def test_34_nobody_is_asked_for_a_url(server: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        port = listener.getsockname()[1]
        for text in (f"http://127.0.0.1:{port}/a.png", f"\\\\127.0.0.1:{port}\\a"):
            assert server.predict(json.dumps({"image": text}).encode(), Content_Type="application/json").status == 400
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(
    "name", ["%00", "..%2f..%2fetc%2fpasswd", "../../etc", "a" * 500, "%ff%fe", "one%00", " one", "ONE"]
)
def test_31_names_that_are_none(name: str, server: Running) -> None:
    for reply in (
        server.predict(PNG, f"?model={name}".replace(" ", "%20")),
        server.predict(PNG, f"?version={name}".replace(" ", "%20")),
        server.ask(f"/v2/models/{name}/ready".replace(" ", "%20")),
        server.ask(f"/static/{name}".replace(" ", "%20")),
    ):
        assert reply.status == 404
        assert reply.error


@pytest.mark.parametrize("top", ["0", "-1", "1.5", "x", "", "9" * 50, "٣", "1e3"])
def test_numbers_that_are_none(top: str, server: Running) -> None:
    reply = server.predict(PNG, f"?top={quote(top)}")
    assert reply.status == 400
    assert reply.error.startswith("top: expected a whole number")


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "images", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": PHOTO.tolist(), **changes}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"inputs": [tensor(datatype="FP32", data=[float("nan")] * 3072)]}, id="35-nan"),
        pytest.param({"inputs": [tensor(datatype="FP32", data=[1e39] * 3072)]}, id="35-infinite"),
        pytest.param({"inputs": [tensor(datatype="FP64")]}, id="36-other-type"),
        pytest.param({"inputs": [tensor(datatype="COMPLEX")]}, id="36-no-type"),
        pytest.param({"inputs": [tensor(shape=[1, 3, 32, 32])]}, id="36-other-order"),
        pytest.param({"inputs": [tensor(shape=[2, 32, 32, 3])]}, id="36-too-few"),
        pytest.param({"inputs": [tensor(data=[300] * 3072)]}, id="36-out-of-range"),
        pytest.param({"inputs": [tensor(data=["a"] * 3072)]}, id="36-texts"),
        pytest.param({"inputs": [tensor(shape=[-1, 32, 32, 3])]}, id="36-negative"),
        pytest.param({"inputs": [tensor(shape=[2**62, 32, 32, 3])]}, id="37-overflow"),
        pytest.param({"inputs": [tensor(shape=[2**70])]}, id="37-more-than-64-bits"),
        pytest.param({"inputs": [tensor(shape=[1] * 10_000)]}, id="37-ten-thousand-sides"),
        pytest.param({"inputs": [tensor(), tensor()]}, id="36-twice"),
        pytest.param({"inputs": []}, id="36-none"),
        pytest.param({"inputs": [tensor()], "outputs": [{"name": "x"}]}, id="36-no-output"),
    ],
)
def test_tensors(content: dict[str, Any], server: Running) -> None:
    reply = server.ask("/v2/models/one/infer", json.dumps(content).encode())
    assert reply.status in (400, 413), reply
    assert reply.error


@pytest.mark.parametrize("length", ["-1", "x", "99999999999999999999", "5000", "1.0"])
def test_36_lengths_of_a_head_that_cannot_be(length: str, server: Running) -> None:
    reply = server.ask("/v2/models/one/infer", b"{}", headers={"Inference-Header-Content-Length": length})
    assert reply.status == 400
    assert reply.error


@pytest.mark.parametrize("change", [-1, 1], ids=["36-a-byte-too-few", "36-a-byte-too-many"])
def test_bytes_that_do_not_fit(change: int, server: Running) -> None:
    head = json.dumps({"inputs": [tensor(parameters={"binary_data_size": 3072}) | {"data": None}]}).encode()
    reply = server.ask(
        "/v2/models/one/infer",
        head + bytes(3072 + change),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert reply.status == 400
    assert reply.error


# 38, 39 Who asks, and how often


def test_38_keys(untrained: RunDir) -> None:
    settings = Settings(
        access_log=True, api_keys=(SecretStr("first"), SecretStr("sécond")), admin_keys=(SecretStr("admin"),)
    )
    with running(settings, {"one": untrained}) as server:
        for headers in (
            {},
            {"X-API-Key": ""},
            {"X-API-Key": "firs"},
            {"X-API-Key": "first "[:-1] + "x"},
            {"X-API-Key": "FIRST"},
            {"X-API-Key": "a" * 50_000},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer nobody"},
            {"Authorization": "Basic first"},
        ):
            for path in ("/v1/predict", "/v1/models", "/v2/models/one/infer", "/v2/models/one", "/metrics", "/nowhere"):
                reply = server.ask(path, PNG if "i" in path[-6:] else None, headers=headers)
                assert reply.status == 401, (path, headers)
                assert reply.headers["www-authenticate"] == "Bearer"
                assert "first" not in reply.error
        for headers in (
            {"X-API-Key": "first"},
            {"Authorization": "Bearer first"},
            {"authorization": "bearer  first"},
            {"X-API-Key": b"s\xc3\xa9cond".decode("latin-1")},
            {"X-API-Key": "admin"},
        ):
            assert server.ask("/v1/predict", PNG, headers=headers).status == 200, headers
        for path in ("/", "/v2/health/live", "/v2/health/ready", "/healthz", "/readyz", "/docs", "/openapi.json"):
            assert server.ask(path).status == 200
        assert not any("first" in json.dumps(line, default=str) for line in server.log_lines)


def test_39_bursts(untrained: RunDir) -> None:
    keys = (SecretStr("one"), SecretStr("two"))
    with running(Settings(access_log=True, api_keys=keys, rate=0.2, burst=5), {"one": untrained}) as server:
        first = [server.predict(PNG, X_API_Key="one") for _ in range(8)]
        assert [reply.status for reply in first] == [200] * 5 + [429] * 3
        assert 1 <= int(first[-1].headers["retry-after"]) <= 5
        assert first[-1].error
        assert server.predict(PNG, X_API_Key="two").status == 200  # its own bucket
        assert server.ask("/v2/health/live").status == 200  # never counted
        guesses = [server.predict(PNG, X_API_Key=f"guess-{n}").status for n in range(8)]
        assert guesses == [401] * 5 + [429] * 3  # nor are guesses free


# 43, 51, 55 Ends and files


def test_43_an_end_does_not_wait_for_stalled_uploads(untrained: RunDir) -> None:
    with running(Settings(access_log=True, body_timeout=0.5, head_timeout=0.5), {"one": untrained}) as server:
        lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        for raw in lines:
            raw.sendall(whole(PNG)[:-5])
        lines[0].recv(0)
        server.server.should_exit = True
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    for raw in lines:
        with raw:
            assert Line(raw).closed()


def test_51_a_graph_cannot_name_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "../secret"), ("length", "16")):
        weights.external_data.add(key=key, value=value)
    node = helper.make_node("Identity", ["w"], ["logits"])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4])
    graph = helper.make_graph([node], "g", [], [output], initializer=[weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folder = tmp_path / "inside"
    folder.mkdir()
    path = folder / "model.int8.onnx"
    path.write_bytes(onnx.ModelProto.SerializeToString(model))
    with pytest.raises(LucidateError):
        open_session(path.read_bytes())  # as a server opens it


def test_55_a_folder_that_goes_while_it_is_served(untrained: RunDir, tmp_path: Path) -> None:
    copy = RunDir(tmp_path / "copy")
    shutil.copytree(untrained.path, copy.path)
    known = expected(untrained, PHOTO)
    with running(Settings(access_log=True), {"one": copy}) as server:
        shutil.rmtree(copy.path)
        assert server.predict(PNG).best["index"] == known.argmax()
        (about,) = server.ask("/v1/models").json
        assert about["classes"]
        assert "gone" in about["notes"][0]
        reply = server.ask("/v1/explain", PNG)
        assert reply.status == 503
        assert "folder" in reply.error
        reply = server.ask("/v2/repository/models/one/load", b"")
        assert reply.status == 400
        assert reply.json["error"]
        assert server.predict(PNG).best["index"] == known.argmax()
        assert server.ask("/v2/health/ready").status == 200
        assert not [line for line in server.log_lines if line["failure"]]


def test_connections_have_a_limit(server: Running) -> None:
    lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(41)]
    assert Line(lines[40]).reply().status == 503
    for raw in lines:
        raw.close()


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    with server.connection() as line:
        line.send(b"".join(whole(PNG, f"X-Request-ID: pipe-{n}") for n in range(5)))
        assert [line.reply().headers["x-request-id"] for _ in range(5)] == [f"pipe-{n}" for n in range(5)]


def test_ids(server: Running) -> None:
    assert server.predict(PNG, X_Request_ID="mine-1").json["id"] == "mine-1"
    for bad in ("a b", "x" * 200, "<script>", "a\tb", ""):
        reply = server.predict(PNG, X_Request_ID=bad)
        assert reply.headers["x-request-id"] != bad
        assert len(reply.json["id"]) == 16


def test_what_goes_wrong_here_is_told_to_the_operator_alone(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(ModelVersion, "probabilities", broken)
    reply: Reply = server.predict(PNG, X_Request_ID="broken-1")
    assert reply.status == 500
    assert "broken-1" in reply.error
    assert "secret" not in reply.error
    line = server.said("broken-1")
    assert line["status"] == 500
    assert "a secret" in str(line["failure"][1])
    server.log_lines.clear()
