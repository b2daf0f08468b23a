"""What one request may take of everybody's time, memory and room."""

from __future__ import annotations

import base64
import gc
import json
import socket
import struct
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from live_server import Line, Running, encoded, photo, running, wait_until
from pydantic import SecretStr

from lucidate.core.errors import ServeError
from lucidate.core.run import RunDir
from lucidate.serve.errors import Overloaded, RequestError
from lucidate.serve.images import uploads
from lucidate.serve.repository import ModelVersion
from lucidate.serve.request_body import parse_json
from lucidate.serve.settings import JsonLimits, Settings, load_settings
from lucidate.serve.tensors import read_request

PNG = encoded(photo(1))
HANG = 10.0  # seconds: all of these take well under one
INFER = "/v2/models/one/infer"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(untrained: RunDir) -> Iterator[Running]:
    with running(Settings(access_log=True), {"one": untrained}) as server:
        yield server


# Names, texts, values


def tensor(number: int = 0) -> dict[str, Any]:
    return {"name": f"{number:x}", "datatype": "UINT8", "shape": [1], "data": [0]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"inputs": [tensor(number) for number in range(10_000)]}, "inputs: expected one, received 10,000"),
        ({"inputs": [tensor(), tensor(1)]}, "inputs: expected one, received 2"),
        (
            {"inputs": [tensor()], "outputs": [{"name": f"{number:x}"} for number in range(40_000)]},
            "outputs: expected at most 16, received 40,000",
        ),
        (
            {"inputs": [tensor()], "outputs": [{"name": "logits"}, {"name": "logits"}]},
            "outputs: expected each name once, received 'logits' twice",
        ),
        (
            {"inputs": [tensor()], "parameters": {f"{number:x}": 0 for number in range(50_000)}},
            "request: parameters: expected at most 64, received 50,000",
        ),
    ],
)
def test_thousands_of_names_are_refused_at_once(content: Any, reason: str, server: Running) -> None:
    body = json.dumps(content).encode()
    begun = time.monotonic()
    reply = server.ask(INFER, body)
    assert time.monotonic() - begun < HANG
    assert (reply.status, reply.error) == (400, reason)


def test_ids_are_no_novels(server: Running) -> None:
    pixels = photo(1)
    one = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": pixels.ravel().tolist()}
    for length, status in ((1024, 200), (1025, 400)):
        reply = server.ask(INFER, json.dumps({"id": "a" * length, "inputs": [one]}).encode())
        assert reply.status == status
        assert reply.json.get("id") == ("a" * length if status == 200 else None)


def test_what_is_long_is_answered_as_what_is_short(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a thread, or on the event loop."""
    texts = [base64.b64encode(PNG).decode()] * 3
    pixels = np.stack([photo(number) for number in range(3)]).astype("<f4")
    one = {"name": "images", "datatype": "FP32", "shape": [3, 32, 32, 3], "data": pixels.ravel().tolist()}
    asked = {"/v1/predict?top=10": {"images": [*texts, "AAAA"]}, INFER: {"inputs": [one]}}
    found = []
    for large in (1, 10**9):
        monkeypatch.setattr("lucidate.serve.request_body.LARGE", large)
        replies = [server.ask(path, json.dumps(content).encode(), headers=JSON) for path, content in asked.items()]
        assert [reply.status for reply in replies] == [200, 200]
        found.append([{key: value for key, value in reply.json.items() if key != "id"} for reply in replies])
    assert found[0] == found[1]


def test_texts_are_counted_before_they_are_read(server: Running) -> None:
    count = 4_000_000
    one = {"name": "images", "datatype": "BYTES", "shape": [count], "parameters": {"binary_data_size": 4 * count}}
    for shape in ([count], [2, count // 2]):
        head = json.dumps({"inputs": [{**one, "shape": shape}]}).encode()
        begun = time.monotonic()
        reply = server.ask(INFER, head + bytes(4 * count), headers={"Inference-Header-Content-Length": str(len(head))})
        assert time.monotonic() - begun < HANG / 2
        assert (reply.status, reply.error) == (413, "images: expected at most 256 in a request, received 4,000,000")
    head = json.dumps({"inputs": [{**one, "shape": [1], "parameters": {"binary_data_size": 9}}]}).encode()
    body = head + struct.pack("<I", 4) + b"abcd" + b"e"
    reply = server.ask(INFER, body, headers={"Inference-Header-Content-Length": str(len(head))})
    assert (reply.status, "expected 1 texts" in reply.error) == (400, True)


def test_a_long_text_among_numbers_takes_no_memory_of_theirs(server: Running) -> None:
    """NumPy would make of each of the others a text as long: 40 GB of these 500 kB."""
    data = ["a" * 200_000, *["b"] * 50_000]
    content = {"inputs": [{**tensor(), "name": "images", "shape": [1, 32, 32, 3], "data": data}]}
    reply = server.ask(INFER, json.dumps(content).encode())
    assert reply.status == 400
    content["inputs"][0] |= {"shape": [1, len(data), 1, 1]}
    reply = server.ask(INFER, json.dumps(content).encode())
    assert (reply.status, reply.error) == (400, "input 'images': expected numbers, received something else")


@pytest.mark.parametrize(
    ("data", "good"),
    [
        ([[1, 2], [3, 4]], True),
        ([1, 2, 3, 4], True),
        ([[[1, 2], [3, 4]]], False),
        ([[1, 2], [3]], False),
        ([[1, 2], 3], False),
        ([1, [2, 3, 4]], False),
        ([[1, 2], [3, [4]]], False),
        ([[1, 2], [3, None]], False),
        ([[1, 2], [3, {}]], False),
        ([1, 2, 3, 256], False),
        ([1, 2, 3, 2**64 - 1], False),
        ([True, 2, 3, 4.0], True),
        ([1, 2, 3, 4.5], False),
    ],
)
def test_numbers_come_flat_or_nested_as_their_shape_says(data: Any, good: bool) -> None:
    body = json.dumps({"inputs": [{**tensor(), "name": "images", "shape": [2, 2], "data": data}]}).encode()
    if good:
        found = read_request(body, None, json=JsonLimits(), images=2).data
        np.testing.assert_array_equal(found, np.array([[1, 2], [3, 4]], np.uint8))
    else:
        with pytest.raises(RequestError) as raised:
            read_request(body, None, json=JsonLimits(), images=2)
        assert raised.value.status == 400


def test_json_is_bounded_by_its_values_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    few = JsonLimits(bytes=1000, values=10)
    assert parse_json(b"[" + b",".join([b"0"] * 10) + b"]", limits=few, instead="") == [0] * 10
    assert parse_json(b'"' + b"a" * 900 + b'"', limits=few, instead="") == "a" * 900
    monkeypatch.setattr("lucidate.serve.request_body.orjson.loads", lambda _: pytest.fail("it was parsed"))
    for text in (b"[" + b"0," * 10 + b"0]", b"[" * 11, b'{"":' * 11, b"[{}," * 6):
        with pytest.raises(RequestError, match="at most 10 values in JSON") as raised:
            parse_json(text, limits=few, instead="do without")
        assert (raised.value.status, raised.value.message.endswith("; do without")) == (413, True)
    with pytest.raises(RequestError, match="at most 1,000 bytes of JSON, received 1,001"):
        parse_json(bytes(1001), limits=few, instead="")


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain", INFER, "/v2/repository/index"])
def test_json_of_many_values_is_refused_on_every_route(path: str, server: Running) -> None:
    reply = server.ask(path, b"[" + b"[]," * 600_000 + b"0]", headers=JSON)
    assert reply.status == 413
    assert "JSON" in reply.error


def test_whole_batches_fit_into_json(server: Running) -> None:
    """As many images as the limit of values leaves room for."""
    pixels = np.stack([photo(number) for number in range(120)])
    one = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape)}
    for data in (pixels.ravel().tolist(), pixels.tolist()):
        reply = server.ask(INFER, json.dumps({"inputs": [{**one, "data": data}]}).encode())
        assert reply.status == 200
        found = np.reshape(reply.json["outputs"][0]["data"], (120, 10))
        np.testing.assert_allclose(found[7], server.truth(pixels[7]), atol=1e-4)


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_forms_are_read_piece_by_piece(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucidate.serve.images.PIECE", piece)
    contents = [PNG[:200], b"\r\n--" * 30, b"\r\n--xy" * 9, b"", bytes(range(256))]
    head = b'--xyz\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    body = b"".join(head + content + b"\r\n" for content in contents) + b"--xyz--\r\n"
    found, several = uploads(body, "multipart/form-data; boundary=xyz", most=9, json=JsonLimits())
    assert (found, several) == (contents, True)


# What stays of a request


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/predict", b"no image", {}, 415),
        ("/v1/predict", b'{"images":["AAAA","AAAA"]}', JSON, 400),
        ("/v1/predict", b"{", JSON, 400),
        ("/v1/explain", b"no image", {}, 415),
        ("/v1/explain", b'{"images":["AAAA","AAAA"]}', JSON, 400),
        (INFER, b"no image", {"Inference-Header-Content-Length": "0"}, 415),
        (INFER, b'{"inputs":[{"name":"images","datatype":"BYTES","shape":[2],"data":["AAAA","AAAA"]}]}', {}, 415),
        (INFER, b"{", {}, 400),
        ("/v2/repository/index", b"{", {}, 400),
        ("/v2/repository/models/one/load", b'{"parameters":{"a":1}}', {}, 400),
        ("/nowhere", b"a", {}, 404),
    ],
)
def test_an_error_goes_with_its_request(
    path: str, body: bytes, headers: dict[str, str], status: int, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when garbage is collected, which is rare here: it knows the frames it went through, and these the body."""
    made: list[weakref.ref[RequestError]] = []
    begin = RequestError.__init__

    def noted(self: RequestError, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        made.append(weakref.ref(self))

    monkeypatch.setattr(RequestError, "__init__", noted)
    gc.collect()
    gc.disable()
    try:
        reply = server.ask(path, body, headers=headers)
        assert (reply.status, bool(made) or status == 404) == (status, True)
        wait_until(lambda: not any(error() for error in made), 5)
    finally:
        gc.enable()


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain", "/v2"])
def test_a_failure_goes_with_its_request(path: str, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failure(Exception):
        pass

    made: list[weakref.ref[Failure]] = []

    def broken(*_: Any, **__: Any) -> Any:
        error = Failure()
        made.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    monkeypatch.setattr(ModelVersion, "probabilities", broken)
    monkeypatch.setattr("lucidate.serve.v2.server_metadata", broken)
    monkeypatch.setattr(
        "lucidate.serve.monitoring.log_request", lambda *_, **__: None
    )  # what is told is kept, by tests
    gc.collect()
    gc.disable()
    try:
        assert server.ask(path, None if path == "/v2" else PNG).status == 500
        wait_until(lambda: not any(error() for error in made), 5)
        assert len(made) == 1
    finally:
        gc.enable()


def test_an_error_anew_is_the_same() -> None:
    error = Overloaded("full", retry_after=7)
    again = error.anew()
    assert again is not error
    assert (type(again), again.message, again.status, again.headers) == (Overloaded, "full", 429, {"Retry-After": "7"})


# Those without a key


@pytest.mark.parametrize(
    "path", ["/healthz", "/v2/health/live", "/readyz", "/docs", "/static/page.js", "/", "/openapi.json"]
)
def test_bodies_to_open_paths_take_nobodys_room(path: str, untrained: RunDir) -> None:
    settings = Settings(
        api_keys=(SecretStr("key"),), body_bytes=2_000_000, bodies_bytes=4_000_000, head_timeout=2, body_timeout=2
    )
    with running(settings, {"one": untrained}) as server:
        lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(8)]
        try:
            for raw in lines:
                raw.settimeout(10)
                raw.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1900000\r\n\r\n".encode())
                raw.sendall(bytes(60_000))
            replies = [Line(raw).reply() for raw in lines]  # before their bodies' ends
            assert {reply.status for reply in replies} == {405}
            assert server.predict(PNG, X_API_Key="key").status == 200
        finally:
            for raw in lines:
                raw.close()


@pytest.mark.parametrize("name", ["api_keys", "admin_keys"])
@pytest.mark.parametrize("key", [" secret", "secret ", "secret\n", "se\tcret", "", " ", "se\0cret"])
def test_keys_that_no_request_can_show_are_refused_in_one_line(name: str, key: str) -> None:
    with pytest.raises(ServeError) as raised:
        load_settings(overrides={name: ["good", key]})
    told = str(raised.value)
    assert told.startswith(f"{name}: expected keys of printable characters without spaces around them")
    assert "number 2" in told
    assert "\n" not in told
    assert "cret" not in told


def test_keys_may_have_spaces_within() -> None:
    assert (
        load_settings(overrides={"api_keys": ["open sesame", "sécond"]}).api_keys[0].get_secret_value() == "open sesame"
    )
