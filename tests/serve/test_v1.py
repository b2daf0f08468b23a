"""The routes for people: what they say, checked against torch and SciPy; and parts of the middleware by themselves."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_server import Running, encoded, expected, photo, running, wait_until
from numpy.typing import NDArray
from pydantic import SecretStr
from scipy.stats import entropy

from fakes import NAMES
from lucidate.core.recipe import PredictRecipe
from lucidate.core.records import Results, RunCard
from lucidate.core.run import RunDir
from lucidate.data.decode import TooLarge, decode
from lucidate.serve import images as images_module
from lucidate.serve import repository as repositories
from lucidate.serve.calibration import Calibration, Views, store_calibrations
from lucidate.serve.errors import Overloaded, RequestError
from lucidate.serve.images import GROUP, decode_images
from lucidate.serve.middleware import KNOWN, Keys, Rates, is_logged, with_middleware
from lucidate.serve.monitoring import JsonLines, Recent
from lucidate.serve.repository import Answers, predictions
from lucidate.serve.request_body import RequestBody
from lucidate.serve.settings import Settings
from lucidate.serve.v1 import accuracy_of

PHOTOS = [photo(number) for number in range(6)]
PNGS = [encoded(each) for each in PHOTOS]


@pytest.fixture(scope="module")
def server(untrained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two models: "one", and "sure", which has a threshold and a temperature of its own."""
    sure = RunDir(tmp_path_factory.mktemp("sure") / "run")
    shutil.copytree(untrained.path, sure.path)
    store_calibrations(sure, {"one": Calibration(temperature=2.0, threshold=0.6, coverage=0.5)})
    with running(Settings(access_log=True), {"one": untrained, "sure": sure}) as server:
        yield server


def form(contents: list[bytes]) -> tuple[bytes, str]:
    parts = [
        f'--xyz\r\nContent-Disposition: form-data; name="f{n}"; filename="{n}"\r\n\r\n'.encode() + content + b"\r\n"
        for n, content in enumerate(contents)
    ]
    field = b'--xyz\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    return field + b"".join(parts) + b"--xyz--\r\n", 'multipart/form-data; boundary="xyz"'


def texts(contents: list[bytes]) -> list[str]:
    return [base64.b64encode(content).decode() for content in contents]


def test_the_answer_is_the_models(server: Running) -> None:
    for pixels, content in zip(PHOTOS, PNGS, strict=True):
        known = server.truth(pixels)
        reply = server.predict(content, "?top=10")
        (prediction,) = reply.json["predictions"]
        found = {each["index"]: each["probability"] for each in prediction["classes"]}
        assert found == pytest.approx(dict(enumerate(known)), abs=1e-5)
        assert [each["label"] for each in prediction["classes"]] == [NAMES[k] for k in np.argsort(-known)]
        assert prediction["entropy"] == pytest.approx(entropy(known), abs=1e-4)
        assert reply.json["model"] == "one"
        assert reply.json["version"] == "1"
        assert reply.json["id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize("count", [1, 6])
def test_each_form_of_a_body_says_the_same(count: int, server: Running) -> None:
    body, kind = form(PNGS[:count])
    wanted = texts(PNGS[:count])
    urls = [f"data:image/png;base64,{text}" for text in wanted]
    replies = [
        server.predict(body, Content_Type=kind),
        server.predict(json.dumps({"images": wanted}).encode(), Content_Type="application/json"),
        server.predict(json.dumps({"images": urls}).encode(), Content_Type="application/vnd.mine+json"),
    ]
    if count == 1:
        replies.append(server.predict(PNGS[0]))
        replies.append(server.predict(PNGS[0], Content_Type="application/x-www-form-urlencoded"))
        replies.append(server.predict(json.dumps({"image": urls[0]}).encode(), Content_Type="application/json"))
    for reply in replies:
        assert len(reply.json["predictions"]) == count
        for pixels, prediction in zip(PHOTOS, reply.json["predictions"], strict=False):
            assert prediction["classes"][0]["probability"] == pytest.approx(server.truth(pixels).max(), abs=1e-5)


def test_images_of_any_size_are_seen_as_in_training(server: Running) -> None:
    large = photo(9, height=300, width=200)
    content = encoded(large, "JPEG", quality=90)
    known = server.truth(decode(content, size=32))
    assert server.predict(content).best["probability"] == pytest.approx(known.max(), abs=1e-5)


def test_top(server: Running) -> None:
    counts = {top: len(server.predict(PNGS[0], f"?top={top}").json["predictions"][0]["classes"]) for top in (1, 7, 999)}
    assert counts == {1: 1, 7: 7, 999: 10}
    assert len(server.predict(PNGS[0]).json["predictions"][0]["classes"]) == 3


def test_models_and_versions(server: Running) -> None:
    sure = server.predict(PNGS[0], "?model=sure&version=1").json
    assert sure["model"] == "sure"
    assert sure["threshold"] == 0.6
    run = server.repository.get("sure").run
    for pixels, content in zip(PHOTOS, PNGS, strict=True):
        known = expected(run, pixels, temperature=2.0)
        (prediction,) = server.predict(content, "?model=sure").json["predictions"]
        assert prediction["classes"][0]["probability"] == pytest.approx(known.max(), abs=1e-5)
        assert prediction["abstain"] is bool(known.max() < 0.6)
    for query in ("?model=two", "?model=one&version=2", "?version=0"):
        reply = server.predict(PNGS[0], query)
        assert reply.status == 404
        assert reply.error


def test_what_is_not_known_is_not_claimed() -> None:
    served: Any = SimpleNamespace(calibration=Calibration(threshold=None), classes=("a", "b", "c"))
    logits = np.zeros((1, 3), np.float32)
    (even,) = predictions(served, Answers(logits, np.full((1, 3), 1 / 3)), top=2)
    assert even["abstain"] is None
    assert [each["label"] for each in even["classes"]] == ["a", "b"]  # ties in the model's order
    assert even["entropy"] == pytest.approx(np.log(3))
    sure = Answers(logits, np.array([[0.0, 1.0, 0.0]]))
    (certain,) = predictions(served, sure, top=3)
    assert certain["entropy"] == 0
    for threshold, abstain in ((0.0, False), (1.0, False), (1.1, True)):
        served.calibration = Calibration(threshold=threshold)
        assert predictions(served, sure, top=1)[0]["abstain"] is abstain


def test_the_models_are_described(server: Running) -> None:
    one, sure = server.ask("/v1/models").json
    assert (one["name"], sure["name"]) == ("one", "sure")
    assert one["classes"] == list(NAMES)
    assert (one["image_size"], one["architecture"], one["parameters"]) == (32, "compact", 1)
    assert one["results"]["val_accuracy"] == 0.5
    assert "made for a test" in one["notes"]
    assert (sure["threshold"], sure["temperature"], sure["coverage"]) == (0.6, 2.0, 0.5)
    assert (sure["calibrated"], sure["views"], sure["precision"]) == (True, "one", "float32")
    assert one["accuracy"] == {"validation": 0.5, "test": None, "views": "one", "views_averaged": 1}


def test_accuracy_is_that_of_the_graph_that_is_served(untrained: RunDir) -> None:
    card = RunCard.load(untrained.card)
    judged = card.model_copy(
        update={
            "recipe": card.recipe.model_copy(update={"predict": PredictRecipe(views="mirror-shift")}),
            "results": Results(
                val_accuracy=0.92, test_accuracy=0.91, val_accuracy_one_view=0.9, test_accuracy_one_view=None
            ),
        }
    )
    cases: list[tuple[Views, bool, float | None, float | None, int]] = [
        ("one", False, 0.9, None, 1),
        ("mirror-shift", False, 0.92, 0.91, 6),
        ("mirror-shift", True, None, None, 6),
        ("mirror", False, None, None, 2),
    ]
    for views, int8, validation, test, number in cases:
        found = accuracy_of(judged, views, int8=int8)
        assert found == {"validation": validation, "test": test, "views": views, "views_averaged": number}


def test_probabilities_say_whether_they_are_calibrated(server: Running) -> None:
    served = server.repository.get("sure")
    for pixels, content in zip(PHOTOS, PNGS, strict=True):
        for query, temperature in (("", 2.0), ("&calibrated=true", 2.0), ("&calibrated=false", 1.0)):
            said = server.predict(content, f"?model=sure{query}").json
            assert (said["calibrated"], said["temperature"], said["views"]) == (temperature != 1, temperature, "one")
            known = expected(served.run, pixels, temperature=temperature)
            (prediction,) = said["predictions"]
            assert prediction["classes"][0]["probability"] == pytest.approx(known.max(), abs=1e-5)
            assert prediction["entropy"] == pytest.approx(entropy(known), abs=1e-4)
            # The threshold is of calibrated confidence, whichever is shown.
            assert prediction["abstain"] is bool(expected(served.run, pixels, temperature=2.0).max() < 0.6)
    reply = server.predict(PNGS[0], "?calibrated=maybe")
    assert (reply.status, reply.error) == (400, "calibrated: expected true or false, received 'maybe'")
    explained = server.ask("/v1/explain?model=sure", PNGS[0]).json
    assert (explained["calibrated"], explained["temperature"]) == (True, 2.0)
    told = server.ask("/v2/models/sure/config").json["parameters"]
    assert (told["calibrated"], told["temperature"]) == ({"string_value": "true"}, {"string_value": "2"})


@pytest.mark.parametrize("logit", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_no_answer(logit: float, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(images: NDArray[np.uint8], **_: Any) -> NDArray[np.float32]:
        return np.array([[logit, 1, 2, 3, 4, 5, 6, 7, 8, 9]] * len(images), np.float32)

    monkeypatch.setattr(server.repository.get("one").engine, "infer", broken)
    for path, headers in (
        ("/v1/predict", {}),
        ("/v1/explain", {}),
        ("/v2/models/one/infer", {"Inference-Header-Content-Length": "0"}),
    ):
        reply = server.ask(path, PNGS[0], headers=headers)
        assert reply.status == 500
        assert "no number" in reply.error


def test_the_last_minute(server: Running) -> None:
    before = server.ask("/v1/live").json
    for _ in range(3):
        server.predict(json.dumps({"images": texts(PNGS)}).encode(), Content_Type="application/json")
    server.ask("/v2/models/one/infer", PNGS[0], headers={"Inference-Header-Content-Length": "0"})
    server.predict(b"no image")
    after = server.ask("/v1/live").json
    assert after["requests_per_second"] > 0
    assert 0 < after["latency_ms"]["p50"] <= after["latency_ms"]["p99"]
    assert [(each["name"], each["queue"], each["capacity"]) for each in after["models"]] == [
        ("one", 0, 512),
        ("sure", 0, 512),
    ]
    counts = [live["models"][0]["drift"]["confidence"]["count"] for live in (before, after)]
    assert counts[1] - counts[0] == 19


def test_answers_have_headers_that_protect(server: Running) -> None:
    for path in ("/", "/v1/models", "/nowhere", "/docs"):
        assert server.ask(path).headers["x-content-type-options"] == "nosniff"
    page = server.ask("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


def test_each_request_has_its_line(server: Running) -> None:
    server.predict(PNGS[0], "?top=1", X_Request_ID="line-1")
    line = server.said("line-1")
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/predict", 200)
    assert line["bytes"] == len(PNGS[0])
    assert line["ms"] > 0
    assert line["client"] == "127.0.0.1"


def test_the_routes_are_counted_by_their_patterns(server: Running) -> None:
    server.predict(PNGS[0])
    server.ask("/nowhere/at/all")
    told = server.ask("/metrics").body.decode()
    assert 'route="/v1/predict",status="200"' in told
    assert "nowhere" not in told


def test_a_request_has_its_time(untrained: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Settings(access_log=True, request_timeout=0.3), {"one": untrained}) as server:
        engine = server.repository.get().engine
        held = threading.Event()
        real = engine.infer

        async def slow(images: Any, *, timeout: float | None = None) -> Any:
            while not held.is_set():
                await asyncio.sleep(0.01)
            return await real(images, timeout=timeout)

        monkeypatch.setattr(engine, "infer", slow)
        reply = server.predict(PNGS[0], X_Request_ID="late-1")
        assert reply.status == 504
        assert reply.error
        assert server.said("late-1")["status"] == 504
        held.set()
        assert server.predict(PNGS[0]).status == 200


def test_what_expires_in_the_queue_is_counted_as_such(untrained: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every route, and not as a client that went."""
    free, entered, real = threading.Event(), threading.Event(), repositories.open_session

    def held(*arguments: Any) -> Any:
        session = real(*arguments)

        def run(names: Any, feed: Any) -> Any:
            entered.set()
            assert free.wait(30)
            return session.run(names, feed)

        return SimpleNamespace(run=run)

    monkeypatch.setattr(repositories, "open_session", held)
    free.set()
    with running(Settings(access_log=True, request_timeout=0.3), {"one": untrained}) as server:
        free.clear()
        entered.clear()
        busy = threading.Thread(target=server.predict, args=(PNGS[0],))
        busy.start()
        assert entered.wait(30)
        raw = {"Inference-Header-Content-Length": "0"}
        assert server.predict(PNGS[1]).status == 504
        assert server.ask("/v2/models/one/infer", PHOTOS[1].tobytes(), headers=raw).status == 504
        free.set()
        busy.join()
        statistics = server.repository.get().engine.statistics
        assert statistics.expired == statistics.fail.count == 2


def test_a_body_that_has_come_has_no_clock(untrained: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model takes longer than a body may."""
    with running(Settings(access_log=True, body_timeout=0.2), {"one": untrained}) as server:
        real = server.repository.load

        async def slow(name: str) -> Any:
            await asyncio.sleep(0.6)
            return await real(name)

        monkeypatch.setattr(server.repository, "load", slow)
        assert server.ask("/v2/repository/models/one/load", b"{}").status == 200


def test_what_is_refused_is_counted_by_its_route(untrained: RunDir) -> None:
    with running(Settings(access_log=True, api_keys=(SecretStr("key"),)), {"one": untrained}) as server:
        assert server.predict(PNGS[0]).status == 401
        assert server.ask("/v2/models/one/infer", b"{}").status == 401
        assert server.ask("/static/page.js").status == 200
        assert server.ask("/nowhere").status == 401
        told = server.ask("/metrics", headers={"X-API-Key": "key"}).body.decode()
    for route, status in (("/v1/predict", 401), ("/v2/models/{model}/infer", 401), ("/static", 200), ("other", 401)):
        assert f'lucidate_http_request_seconds_count{{route="{route}",status="{status}"}} 1.0' in told, route


# Decoding


def decode_now(blobs: list[bytes], **limits: int) -> list[Any]:
    return asyncio.run(decode_images(blobs, size=32, **{"max_pixels": 10**7, **limits}))


def test_no_more_is_decoded_on_the_event_loop_than_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder may find a larger image than the header claims: of two headers, say, it believes the second."""
    asked: list[tuple[bool, int]] = []

    def spy(content: bytes, *, size: int, max_pixels: int) -> Any:
        here = threading.current_thread() is threading.main_thread()
        asked.append((here, max_pixels))
        if here:
            raise TooLarge("2000×2000")
        return decode(content, size=size, max_pixels=max_pixels)

    monkeypatch.setattr(images_module, "decode", spy)
    (found,) = decode_now([PNGS[0]])
    assert asked == [(True, images_module.SMALL_PIXELS), (False, 10**7)]
    np.testing.assert_array_equal(found, PHOTOS[0])


def test_many_images_keep_their_order() -> None:
    blobs = [encoded(photo(number)) for number in range(2 * GROUP * 2 + 3)]
    blobs[7] = b""
    found = decode_now(blobs)
    assert isinstance(found.pop(7), RequestError)
    for number, pixels in zip([n for n in range(len(blobs)) if n != 7], found, strict=True):
        np.testing.assert_array_equal(pixels, photo(number))
    assert decode_now([]) == []


def test_too_many_that_wait_for_a_thread() -> None:
    with pytest.raises(Overloaded):
        decode_now([encoded(photo(0, height=600, width=600))] * 9, backlog=8)
    assert images_module._backlog.images == 0


def test_those_who_go_leave_the_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = [encoded(photo(0, height=600, width=600))] * 400
    seen: list[bytes] = []
    gate = threading.Event()

    def slowly(blob: bytes, size: int, pixels: int) -> Any:  # noqa: ARG001
        seen.append(blob)
        gate.wait(10)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(images_module, "_decoded", slowly)

    async def go() -> None:
        task = asyncio.create_task(decode_images(blobs, size=32, max_pixels=10**7))
        while not seen:
            await asyncio.sleep(0.01)
        task.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert images_module._backlog.images == 0
    assert len(seen) <= 2 * GROUP


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_small_files_are_known_by_their_headers(format: str) -> None:
    assert images_module._is_small(encoded(photo(0), format))
    assert not images_module._is_small(encoded(np.zeros((3000, 3000, 3), np.uint8), format))
    assert images_module._claimed(encoded(photo(0, height=20, width=30), format)) == (30, 20)
    for length in range(40):
        images_module._is_small(encoded(photo(0), format)[:length])  # never beyond its end


# The middleware's parts


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_refill() -> None:
    clock = Clock()
    rates = Rates(per_second=2, burst=3, clock=clock)
    assert [rates.wait("a") for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    assert rates.wait("b") == 0
    clock.now += 0.5
    assert [rates.wait("a"), rates.wait("a")] == [0, 0.5]
    clock.now += 3600
    assert [rates.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_rates_remember_a_bounded_number() -> None:
    rates = Rates(per_second=1, burst=1, clock=Clock())
    for number in range(2 * KNOWN):
        rates.wait(str(number))
    assert len(rates._buckets) == KNOWN
    assert rates.wait(str(2 * KNOWN - 1)) > 0


def test_keys() -> None:
    keys = Keys([SecretStr("one"), SecretStr("two")])
    names = {keys.holder({b"x-api-key": key}) for key in (b"one", b"two")}
    assert len(names) == 2
    assert None not in names
    assert keys.holder({b"authorization": b"Bearer one"}) == keys.holder({b"x-api-key": b"one"})
    assert keys.holder({b"x-api-key": b"three", b"authorization": b"Bearer one"}) is None
    assert keys.holder({}) is None
    assert not Keys([])
    assert "one" not in repr(vars(keys))


def test_the_minute_ends() -> None:
    clock = Clock()
    recent = Recent(clock)
    assert recent.report() == {"requests_per_second": 0.0, "latency_ms": {"p50": None, "p99": None}}
    for second in range(10):
        clock.now = 100.0 + second
        for _ in range(20):
            recent.add(0.004)
    assert recent.report()["requests_per_second"] == pytest.approx(200 / 9)
    assert recent.report()["latency_ms"] == pytest.approx({"p50": 4, "p99": 4})
    clock.now += 55
    assert recent.report()["requests_per_second"] == pytest.approx(120 / 60)  # seconds 4 to 9 are within the minute
    clock.now += 60
    assert recent.report()["latency_ms"]["p50"] is None


def test_lines_are_json_whatever_a_client_wrote() -> None:
    fields = {"path": '/"\n\x1b[31m{', "client": None}
    record = logging.LogRecord("lucidate.serve", logging.INFO, "", 0, "request", (), None)
    record.fields = fields
    (line,) = JsonLines().format(record).splitlines()
    assert json.loads(line) | fields == json.loads(line)
    try:
        raise ValueError("inside")
    except ValueError:
        record.exc_info = sys.exc_info()
    (line,) = JsonLines().format(record).splitlines()
    assert "ValueError: inside" in json.loads(line)["traceback"]


def test_the_middleware_lets_a_servers_own_messages_through() -> None:
    seen: list[str] = []
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        seen.append(scope["type"])

    async def nothing() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    stack = with_middleware(app, Settings(access_log=False))
    asyncio.run(stack({"type": "lifespan"}, nothing, send))
    asyncio.run(stack({"type": "websocket"}, nothing, send))
    assert seen == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1003}]


def test_an_answer_that_broke_off_is_not_followed_by_another() -> None:
    sent: list[dict[str, Any]] = []
    told: list[tuple[int, float]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError("in the middle")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    stack = with_middleware(
        app, Settings(access_log=False), observe=lambda _, status, seconds: told.append((status, seconds))
    )
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    logger = logging.getLogger("lucidate.serve")
    before, logger.disabled = logger.disabled, True
    try:
        asyncio.run(stack(scope, None, send))
    finally:
        logger.disabled = before
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert [status for status, _ in told] == [200]


def test_nobody_hears_of_requests_where_that_was_asked_for(untrained: RunDir) -> None:
    with running(Settings(access_log=False), {"one": untrained}) as server:
        server.predict(PNGS[0])
        assert server.predict(b"").status == 400
        assert server.log_lines == []


def test_lines_are_written_where_nobody_sits_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda terminal=terminal: terminal))
        assert is_logged(None) is not terminal
        assert is_logged(True)
        assert not is_logged(False)


def test_settings_tell_what_they_are_for() -> None:
    for name in ("api_keys", "rate", "burst", "body_bytes", "max_pixels", "head_timeout"):
        assert Settings.model_fields[name].description
    assert "secret" not in repr(Settings(api_keys=(SecretStr("secret"),)))


def test_the_server_lets_go_of_bodies(server: Running) -> None:
    wait_until(lambda: all(line["status"] for line in server.log_lines))
    for _ in range(3):
        server.predict(bytes(1_000_000))
    app: Any = server.server.config.app
    while not isinstance(app, RequestBody):
        app = app.app
    wait_until(lambda: app.held == 0)
