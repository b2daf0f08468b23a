"""The Open Inference Protocol, without the client that is tested beside it: forms, errors, traps."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from servers import in_process
from starlette.testclient import TestClient

from lucidate.core.run import RunDir

INFER = "/v2/models/photos/infer"
HEADER = "Inference-Header-Content-Length"


def tensor(images: NDArray[Any], datatype: str = "UINT8") -> dict[str, Any]:
    return {"name": "images", "datatype": datatype, "shape": list(images.shape), "data": images.ravel().tolist()}


def binary(images: NDArray[Any], datatype: str = "UINT8", **request: Any) -> tuple[bytes, dict[str, str]]:
    """A body with a tensor behind its JSON, and its header."""
    blob = images.tobytes()
    described = {"name": "images", "datatype": datatype, "shape": list(images.shape)}
    described["parameters"] = {"binary_data_size": len(blob)}
    head = json.dumps({"inputs": [described], **request}).encode()
    return head + blob, {HEADER: str(len(head))}


def probabilities(client: TestClient, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    found = client.post(INFER, json={"inputs": [tensor(images)]}).json()["outputs"][0]
    return np.array(found["data"], np.float32).reshape(found["shape"])


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/healthz", "/readyz", "/v2", "/v2/"])
def test_health_and_metadata_are_200_at_once(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_a_model_describes_itself(client: TestClient, pixels: NDArray[np.uint8], version: str) -> None:
    size = pixels.shape[1]
    about = client.get(f"/v2/models/photos{version}").json()
    assert about["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, size, size, 3]}]
    assert about["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}]
    config = client.get(f"/v2/models/photos{version}/config").json()
    assert config["input"][0]["dims"] == [size, size, 3]
    assert config["input"][0]["format"] == "FORMAT_NHWC"
    assert config["max_batch_size"] > 0
    assert client.get(f"/v2/models/photos{version}/ready").status_code == 200
    stats = client.get(f"/v2/models/photos{version}/stats").json()["model_stats"]
    assert [one["version"] for one in stats] == ["1"]
    assert client.get("/v2/models/stats").json()["model_stats"][0]["name"] == "photos"


def test_json_and_binary_give_the_same_numbers(
    client: TestClient, pixels: NDArray[np.uint8], truth: NDArray[np.float64]
) -> None:
    expected = probabilities(client, pixels)
    np.testing.assert_allclose(expected, truth, rtol=0, atol=1e-5)
    body, header = binary(pixels, parameters={"binary_data_output": True}, id="seven")
    answer = client.post(INFER, content=body, headers=header)
    length = int(answer.headers[HEADER])
    head = json.loads(answer.content[:length])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert head["id"] == "seven"
    assert head["outputs"][0]["parameters"] == {"binary_data_size": expected.nbytes}
    found = np.frombuffer(answer.content[length:], "<f4").reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # JSON is flat or nested, binary the same floats


def test_floats_of_the_same_range_are_the_same_images(client: TestClient, pixels: NDArray[np.uint8]) -> None:
    body, header = binary(pixels.astype("<f4"), "FP32")
    found = client.post(INFER, content=body, headers=header).json()["outputs"][0]["data"]
    np.testing.assert_allclose(np.array(found), probabilities(client, pixels).ravel(), rtol=0, atol=1e-6)


def test_nested_json_and_an_id_only_where_one_was_sent(client: TestClient, pixels: NDArray[np.uint8]) -> None:
    nested = {**tensor(pixels[:2]), "data": pixels[:2].tolist()}
    answer = client.post(INFER, json={"inputs": [nested]}).json()
    assert "id" not in answer
    assert answer["model_version"] == "1"
    assert answer["outputs"][0]["shape"] == [2, 10]


def test_encoded_images_three_ways(client: TestClient, pixels: NDArray[np.uint8], png: bytes) -> None:
    import base64

    expected = probabilities(client, pixels[:1]).ravel()
    text = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png).decode()]}
    blob = struct.pack("<I", len(png)) + png
    part = {"name": "images", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [part]}).encode()
    answers = [
        client.post(INFER, json={"inputs": [text]}).json()["outputs"][0]["data"],
        client.post(INFER, content=head + blob, headers={HEADER: str(len(head))}).json()["outputs"][0]["data"],
    ]
    raw = client.post(INFER, content=png, headers={HEADER: "0"})
    answers.append(np.frombuffer(raw.content[int(raw.headers[HEADER]) :], "<f4"))
    for answer in answers:
        np.testing.assert_allclose(np.array(answer), expected, rtol=0, atol=1e-6)


def test_a_body_without_json_may_be_pixels(client: TestClient, pixels: NDArray[np.uint8]) -> None:
    raw = client.post(INFER, content=pixels[:1].tobytes(), headers={HEADER: "0"})
    found = np.frombuffer(raw.content[int(raw.headers[HEADER]) :], "<f4")
    np.testing.assert_allclose(found, probabilities(client, pixels[:1]).ravel(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_classes_in_words(client: TestClient, pixels: NDArray[np.uint8], as_bytes: bool) -> None:
    wanted = {"name": "probabilities", "parameters": {"classification": 3, "binary_data": as_bytes}}
    answer = client.post(INFER, json={"inputs": [tensor(pixels[:2])], "outputs": [wanted]})
    if as_bytes:
        length = int(answer.headers[HEADER])
        output, blob, texts = json.loads(answer.content[:length])["outputs"][0], answer.content[length:], []
        while blob:
            (size,) = struct.unpack_from("<I", blob)
            texts.append(blob[4 : 4 + size].decode())
            blob = blob[4 + size :]
    else:
        output = answer.json()["outputs"][0]
        texts = output["data"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 3])
    expected = probabilities(client, pixels[:2])
    for row, best in zip(expected, np.array(texts).reshape(2, 3), strict=True):
        values, indices = [float(text.split(":")[0]) for text in best], [int(text.split(":")[1]) for text in best]
        assert indices == np.argsort(-row, kind="stable")[:3].tolist()
        np.testing.assert_allclose(values, row[indices], atol=1e-6)


def test_logits_for_whoever_names_them(client: TestClient, pixels: NDArray[np.uint8]) -> None:
    outputs = [{"name": "logits"}, {"name": "probabilities"}]
    found = client.post(INFER, json={"inputs": [tensor(pixels[:2])], "outputs": outputs}).json()["outputs"]
    assert [one["name"] for one in found] == ["logits", "probabilities"]
    logits, known = (np.array(one["data"]).reshape(2, 10) for one in found)
    assert (logits.argmax(1) == known.argmax(1)).all()


def test_no_image_is_no_error(client: TestClient, pixels: NDArray[np.uint8]) -> None:
    body, header = binary(pixels[:0])
    assert client.post(INFER, content=body, headers=header).json()["outputs"][0]["shape"] == [0, 10]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_requests_and_answers_may_be_compressed(client: TestClient, pixels: NDArray[np.uint8], coding: str) -> None:
    body, header = binary(np.repeat(pixels, 4, 0))
    packed = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    answer = client.post(
        INFER, content=packed, headers={**header, "Content-Encoding": coding, "Accept-Encoding": coding}
    )
    assert answer.headers["content-encoding"] == coding
    assert answer.json()["outputs"][0]["shape"] == [48, 10]  # the client unpacks
    for other in ("br", "zstd", "identity", f"{coding};q=0"):
        plain = client.post(INFER, content=body, headers={**header, "Accept-Encoding": other})
        assert "content-encoding" not in plain.headers


def test_only_inference_is_compressed(client: TestClient) -> None:
    for path in ("/v2/models/photos", "/v2/models/photos/config", "/v2/nothing", "/metrics"):
        assert "content-encoding" not in client.get(path, headers={"Accept-Encoding": "gzip, deflate, br"}).headers


def damaged(images: NDArray[np.uint8]) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Requests that are each wrong in one way."""
    good = tensor(images[:1])
    body, header = binary(images[:1])
    length = int(header[HEADER])

    def plain(**changes: Any) -> tuple[bytes, dict[str, str]]:
        return json.dumps({"inputs": [good], **changes}).encode(), {}

    def with_input(**changes: Any) -> tuple[bytes, dict[str, str]]:
        return plain(inputs=[{**good, **changes}])

    size = images[:1].nbytes
    return {
        "empty": (b"", {}),
        "no JSON": (b"\xff\xfe", {}),
        "a list": (b"[]", {}),
        "deep": (b"[" * 100_000, {}),
        "no inputs": plain(inputs=[]),
        "inputs of another form": plain(inputs={"images": 1}),
        "an input of another form": plain(inputs=["images"]),
        "twice the same input": plain(inputs=[good, good]),
        "two inputs": plain(inputs=[good, {**good, "name": "others"}]),
        "another input": with_input(name="input_1"),
        "no name": with_input(name=None),
        "unknown datatype": with_input(datatype="FLOAT"),
        "another datatype": with_input(datatype="INT64"),
        "half floats as JSON": with_input(datatype="FP16"),
        "negative shape": with_input(shape=[-1, *images.shape[1:]]),
        "fractional shape": with_input(shape=[1.0, *images.shape[1:]]),
        "true in a shape": with_input(shape=[True, *images.shape[1:]]),
        "huge shape": with_input(shape=[2**31 - 1] * 8),
        "larger numbers": with_input(shape=[2**63, 2**63]),
        "no shape": with_input(shape=None),
        "channels first": with_input(shape=[1, 3, *images.shape[1:3]]),
        "too few values": with_input(data=[1, 2, 3]),
        "ragged": with_input(data=[[1, 2], [3]]),
        "texts": with_input(data=["1"] * size),
        "too large": with_input(data=[256] * size),
        "below zero": with_input(data=[-1] * size),
        "fractions": with_input(data=[0.5] * size),
        "objects": with_input(data=[{}] * size),
        "no data": with_input(data=None),
        "normalized": with_input(datatype="FP32", data=[0.5] * size),
        "beyond 255": with_input(datatype="FP32", data=[255.5] * size),
        "NaN": (json.dumps({"inputs": [{**good, "datatype": "FP32", "data": [float("nan")] * size}]}).encode(), {}),
        "NaN as bytes": binary(np.full(images[:1].shape, np.nan, "<f4"), "FP32"),
        "infinity as bytes": binary(np.full(images[:1].shape, np.inf, "<f4"), "FP32"),
        "base64 that is none": with_input(datatype="BYTES", shape=[1], data=["%%%"]),
        "text that is no image": with_input(datatype="BYTES", shape=[1], data=["aGVsbG8="]),
        "an address": with_input(datatype="BYTES", shape=[1], data=["http://127.0.0.1/cat.png"]),
        "unknown output": plain(outputs=[{"name": "softmax"}]),
        "twice the same output": plain(outputs=[{"name": "logits"}, {"name": "logits"}]),
        "classes that are none": plain(outputs=[{"name": "logits", "parameters": {"classification": -1}}]),
        "half a class": plain(outputs=[{"name": "logits", "parameters": {"classification": 1.5}}]),
        "binary of another form": plain(outputs=[{"name": "logits", "parameters": {"binary_data": 1}}]),
        "id of another form": plain(id=7),
        "parameters of another form": plain(parameters=[]),
        "a reserved parameter": plain(parameters={"triton_x": 1}),
        "shared memory": with_input(parameters={"shared_memory_region": "a", "shared_memory_byte_size": 1}),
        "timeout of another form": plain(parameters={"timeout": "soon"}),
        "header of another form": (body, {HEADER: "x"}),
        "negative header": (body, {HEADER: "-1"}),
        "header beyond the body": (body, {HEADER: str(len(body) + 1)}),
        "huge header": (body, {HEADER: "9" * 30}),
        "too few bytes": (body[:-1], header),
        "too many bytes": (body + b"x", header),
        "bytes and data": (body.replace(b'"shape"', b'"data": [], "shape"'), {HEADER: str(length + 12)}),
        "raw that is no image": (b"hello", {HEADER: "0"}),
    }


def test_whatever_is_wrong_is_named(client: TestClient, pixels: NDArray[np.uint8]) -> None:
    for what, (body, header) in damaged(pixels).items():
        answer = client.post(INFER, content=body, headers=header)
        assert 400 <= answer.status_code < 500, (what, answer.status_code, answer.text)
        assert list(answer.json()) == ["error"], what
        assert answer.json()["error"], what
    assert client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/photos/versions/2/infer", 404),
        ("POST", "/v2/models/photos/versions/x/infer", 404),
        ("GET", "/v2/models/..%2Fphotos/ready", 404),
        ("GET", "/v2/models/photos/infer", 405),
        ("DELETE", "/v2/models/photos", 405),
        ("POST", "/v2/health/live", 405),
        ("OPTIONS", "/v2/models/photos/infer", 405),
        ("TRACE", "/v2", 405),
        ("GET", "/v2/models/photos/infer/", 404),
        ("POST", "/v2/systemsharedmemory/status", 404),
        ("POST", "/v2/repository/models/other/load", 404),
        ("POST", "/v2/repository/models/other/unload", 404),
    ],
)
def test_every_error_has_one_form(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, follow_redirects=False)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert answer.headers["content-type"] == "application/json"


def test_head_is_get_without_a_body(client: TestClient) -> None:
    answer = client.head("/v2/health/live")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_repository_lists_its_models(client: TestClient) -> None:
    entry = {"name": "photos", "version": "1", "state": "READY", "reason": ""}
    for body in (b"", b'{"ready": true}', b"{}"):
        assert client.post("/v2/repository/index", content=body).json() == [entry]
    assert client.post("/v2/repository/index", content=b"[").status_code == 400
    sent = {"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}
    assert client.post("/v2/repository/models/photos/load", json=sent).status_code == 400


def test_figures_are_what_prometheus_reads(client: TestClient, pixels: NDArray[np.uint8]) -> None:
    def value(name: str) -> float:
        families = text_string_to_metric_families(client.get("/metrics").text)
        # The parser appends "_total" to a counter's name; the text does not, as Triton's does not.
        return sum(s.value for family in families for s in family.samples if s.name in (name, f"{name}_total"))

    requests, images = value("nv_inference_request_success"), value("nv_inference_count")
    probabilities(client, pixels[:5])
    assert value("nv_inference_request_success") == requests + 1
    assert value("nv_inference_count") == images + 5
    assert value("nv_inference_pending_request_count") == 0
    text = client.get("/metrics").text
    assert '\nnv_inference_count{model="photos",version="1"} ' in text
    assert 'lucidate_http_request_seconds_count{route="/v2/models/{model}/infer",status="200"}' in text
    assert "photos/infer" not in text  # patterns, not paths: there are as many paths as clients like


def test_the_documentation_knows_every_route(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer", "/v1/predict"} <= paths.keys()
    assert client.get("/docs").status_code == 200


def test_more_json_than_is_quick_to_read_is_refused(untrained: RunDir, pixels: NDArray[np.uint8]) -> None:
    found, _ = in_process({"photos": untrained.path}, json_bytes=9_000)
    with found as client:
        for count, status in ((1, 200), (2, 413)):
            images = pixels[:count] // 100  # two characters a value
            tensor = {
                "name": "images",
                "datatype": "UINT8",
                "shape": list(images.shape),
                "data": images.ravel().tolist(),
            }
            body = json.dumps({"inputs": [tensor]}, separators=(",", ":"))
            reply = client.post("/v2/models/photos/infer", content=body)
            assert reply.status_code == status
        assert "expected at most 9,000 bytes of JSON" in reply.json()["error"]
