"""The page of a served model in a real browser, before a real server: what it says is what the API says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import Tab
from live_server import Running, encoded, running
from numpy.typing import NDArray

from lucidate.core.records import RunCard, softmax
from lucidate.core.run import RunDir
from lucidate.data.packed import packed_images
from lucidate.predict.infer import predict_run
from lucidate.report.theme import DARK
from lucidate.serve.calibration import calibration_of_run, store_calibrations
from lucidate.serve.graph import open_graph
from lucidate.serve.settings import Settings

pytestmark = pytest.mark.slow

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
STATIC = Path(str(resources.files("lucidate.serve"))) / "page" / "static"
KEY = "only for this test"

browser_only = pytest.mark.browser


@pytest.fixture(scope="module")
def run(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The digits, with a threshold that half of the images reach."""
    open_graph(RunDir(run_folder), views="one", int8=False)  # made once, for all that are copied from it
    copy = RunDir(tmp_path_factory.mktemp("page") / "digits")
    shutil.copytree(run_folder, copy.path)
    table = predict_run(copy, "validation")
    found = calibration_of_run(copy)
    middle = float(np.median(softmax(table.logits / found.temperature).max(1)))
    store_calibrations(copy, {"one": found.model_copy(update={"threshold": middle, "coverage": 0.5, "note": ""})})
    return copy


@pytest.fixture(scope="module")
def server(run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two models: the digits, and the same without anything but its weights."""
    bare = RunDir(tmp_path_factory.mktemp("page") / "bare")
    bare.path.mkdir()
    for file in (run.card, run.weights):
        shutil.copy(file, bare.path)
    shutil.copytree(run.path / "export", bare.path / "export")
    with running(Settings(), {"digits": run, "bare": bare}) as started:
        yield started


@pytest.fixture(scope="module")
def images(run: RunDir, server: Running) -> dict[str, bytes]:
    """An image that is answered, and one that is abstained from."""
    packed = packed_images(RunCard.load(run.card))
    assert packed is not None
    found: dict[str, bytes] = {}
    for pixels in packed.images[:200]:
        content = encoded(np.asarray(pixels))
        abstains = server.predict(content, "?model=digits").json["predictions"][0]["abstain"]
        found.setdefault("abstained" if abstains else "answered", content)
        if len(found) == 2:
            return found
    raise AssertionError("no image is abstained from, or none is answered")


@pytest.fixture
def tab(browser: Any, server: Running) -> Iterator[Tab]:
    context = browser.new_context(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
    yield Tab(context.new_page(), f"http://127.0.0.1:{server.port}/").open()
    context.close()


def percent(share: float) -> str:
    shown = f"{100 * share:.1f}\u00a0%"
    if share > 0 and shown.startswith("0.0"):
        return "< 0.1\u00a0%"
    return "> 99.9\u00a0%" if share < 1 and shown.startswith("100.0") else shown


def how(said: dict[str, Any]) -> str:
    assert said["calibrated"]
    return f" (calibrated, by a temperature of {said['temperature']:.2f})"


@browser_only
def test_shares_are_shown_as_what_they_are(tab: Tab) -> None:
    shown = tab.page.evaluate(
        """async shares => {
            const { percent } = await import("/static/words.js");
            return shares.map(share => {
                try { return percent(share); } catch (error) { return error.message; }
            });
        }""",
        [0, 1e-9, 0.00049, 0.00051, 0.0011, 0.5, 0.9989, 0.99949, 0.9996, 1, None],
    )
    assert [text.replace("\u00a0", " ") for text in shown] == [
        "0.0 %",
        "< 0.1 %",
        "< 0.1 %",
        "0.1 %",
        "0.1 %",
        "50.0 %",
        "99.9 %",
        "99.9 %",
        "> 99.9 %",
        "100.0 %",
        "expected a share as a number, received null",
    ]


@browser_only
def test_accuracy_says_of_which_answers_it_is(tab: Tab, server: Running) -> None:
    about = server.ask("/v1/models").json[0]
    found = about["accuracy"]
    assert (found["test"], found["views"], found["views_averaged"]) == (None, "one", 1)  # it has seen no test image
    shown = f"{percent(found['validation'])}, by one view of each image, as it is served"
    assert shown in tab.page.locator("#facts").inner_text()
    assert "right" not in tab.page.locator("#lead").inner_text()
    about["accuracy"] |= {"test": 0.91, "views": "mirror-shift", "views_averaged": 6}
    tab.page.route("**/v1/models", lambda route: route.fulfill(json=[about]))
    tab.open()
    assert "names 91.0\u00a0% right, by the mean of 6 views of each" in tab.page.locator("#lead").inner_text()
    tab.check()


@browser_only
def test_an_answer_without_numbers_is_an_error(
    tab: Tab, server: Running, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(shown: NDArray[np.uint8], **_: Any) -> NDArray[np.float32]:
        return np.full((len(shown), 10), np.nan, np.float32)

    with monkeypatch.context() as patch:
        patch.setattr(server.repository.get("digits").engine, "infer", broken)
        tab.drop(images["answered"])
        assert "no number" in tab.page.wait_for_selector("#problem:not([hidden])").inner_text()
    assert tab.page.locator("#verdict").inner_text() == "No answer"
    assert "nan" not in tab.page.locator("#answer").inner_text().lower().replace("nats", "")
    tab.check(500)


@browser_only
def test_a_dropped_image_gets_the_apis_answer(tab: Tab, server: Running, images: dict[str, bytes]) -> None:
    said = server.predict(images["answered"], "?model=digits&top=5").json
    classes = said["predictions"][0]["classes"]
    tab.drop(images["answered"])
    tab.shows(classes[0]["label"])
    assert tab.bars == [(each["label"], percent(each["probability"])) for each in classes]
    words = tab.page.locator("#words").inner_text()
    assert words.startswith(
        f"{percent(classes[0]['probability'])} sure{how(said)}. It answers from {percent(said['threshold'])} on"
    )
    assert "at most 5\u00a0% of these wrong" in words
    width = tab.page.locator("#bars .fill").first.evaluate("fill => fill.style.width")
    assert float(width[:-1]) == pytest.approx(100 * classes[0]["probability"], abs=1e-3)
    entropy = said["predictions"][0]["entropy"]
    assert f"entropy {entropy:.2f} of 2.30 nats" in tab.page.locator("#doubt").inner_text()
    assert tab.page.locator("[aria-live]").get_by_text(classes[0]["label"], exact=True).count() == 1
    tab.check()


@browser_only
def test_a_pasted_image_below_the_threshold_is_not_named(tab: Tab, server: Running, images: dict[str, bytes]) -> None:
    said = server.predict(images["abstained"], "?model=digits").json
    best = said["predictions"][0]["classes"][0]
    transfer = tab.transfer(images["abstained"], "paste.png", "image/png")
    tab.page.evaluate("data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", transfer)
    tab.shows("I’d rather not say")
    words = tab.page.locator("#words").inner_text()
    assert words.startswith(
        f"My best guess is {best['label']}, at {percent(best['probability'])}{how(said)}. I answer from"
    )
    tab.check()


@browser_only
def test_a_heatmap_is_the_apis_and_can_be_faded(tab: Tab, server: Running, images: dict[str, bytes]) -> None:
    tab.drop(images["answered"])
    tab.page.click("#why:not([disabled])")
    tab.page.wait_for_selector("#heat:not([hidden])")
    said = server.ask("/v1/explain?model=digits&side=32", images["answered"]).json
    values = np.array(said["map"])
    alpha = tab.page.locator("#heat").evaluate(
        "canvas => [canvas.width, ...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
        ".filter((_, place) => place % 4 === 0)"
    )
    assert alpha[0] == values.shape[1]
    peak = np.abs(values).max()
    assert peak > 0
    np.testing.assert_allclose(alpha[1:], 255 * np.clip(values / peak, 0, 1).ravel(), atol=0.51)
    assert said["trust"]["verdict"] in tab.page.locator("#trust").inner_text()

    def opacity() -> float:
        return float(tab.page.locator("#heat").evaluate("canvas => getComputedStyle(canvas).opacity"))

    assert opacity() == 0.65
    tab.page.locator("#fade").fill("20")
    assert opacity() == 0.2
    tab.page.locator("#fade").press("ArrowRight")
    assert opacity() == 0.21
    tab.page.locator("#bars button").nth(1).click()  # what speaks for the second class?
    tab.page.wait_for_selector('#bars li:nth-child(2) button[aria-pressed="true"]')
    assert f"spoke for {tab.bars[1][0]}" in tab.page.locator("#trust").inner_text()
    tab.page.select_option("#method", "layercam")
    tab.page.wait_for_selector("#working", state="hidden")
    asked = [url for url in tab.requests if "/v1/explain" in url]
    assert "method=layercam" in asked[-1]
    tab.page.click("#why")
    tab.page.wait_for_selector("#heat", state="hidden")
    tab.check()


@browser_only
def test_everything_fits_a_phone_and_works_by_keyboard(browser: Any, server: Running) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    tab = Tab(context.new_page(), f"http://127.0.0.1:{server.port}/").open()
    dark = tuple(int(DARK.background[place : place + 2], 16) for place in (1, 3, 5))
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == f"rgb{dark}"
    tab.check()
    tab.page.wait_for_selector("#tiles button")  # the page is done: nothing takes the focus away
    with tab.page.expect_file_chooser():
        tab.page.locator("#file").press("Enter")
    tab.page.locator("#tiles button").first.focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#bars button")
    tab.page.locator("#why").press("Enter")
    tab.page.wait_for_selector("#heat:not([hidden])")
    tab.check()
    small = "[...document.querySelectorAll('button, select, input[type=range]')].filter(each => each.offsetParent)"
    heights = tab.page.evaluate(f"{small}.map(each => each.getBoundingClientRect().height)")
    assert min(heights) >= 34  # pixels that a finger can hit
    context.close()


@browser_only
def test_examples_are_the_runs_own_and_know_their_label(tab: Tab, server: Running, run: RunDir) -> None:
    packed = packed_images(RunCard.load(run.card))
    assert packed is not None
    listed = server.ask("/v1/examples?model=digits").json["examples"]
    assert len(listed) == 10
    label_of = dict(zip(packed.ids.tolist(), packed.labels.tolist(), strict=True))
    classes = RunCard.load(run.card).classes
    assert [each["label"] for each in listed] == [classes[label_of[each["id"]]] for each in listed] == list(classes)
    tile = tab.page.locator("#tiles button").nth(3)
    assert tile.inner_text() == listed[3]["label"]
    tile.click()
    tab.page.wait_for_selector("#bars button")
    best = server.predict(server.ask(listed[3]["url"]).body, "?model=digits").best
    assert tab.bars[0] == (best["label"], percent(best["probability"]))
    assert re.search(r"Its label says (so too|\w+)\.$", tab.page.locator("#words").inner_text())
    missing = server.ask("/v1/examples/10.png?model=digits")
    assert missing.status == 404
    assert "expected one of 10" in missing.error
    tab.check()


@browser_only
def test_another_model_can_be_chosen_and_shows_no_more_than_it_knows(tab: Tab, images: dict[str, bytes]) -> None:
    tab.drop(images["answered"])
    tab.page.wait_for_selector("#bars button")
    tab.page.select_option("#model", "bare")
    tab.page.wait_for_selector("#code:has-text('model=bare')")
    tab.page.wait_for_selector("#words:has-text('has not been measured')")
    tab.page.wait_for_selector("#examples", state="hidden")
    tab.page.wait_for_selector("#notes:has-text('Not calibrated')")
    tab.page.wait_for_selector("#words:has-text('(not calibrated)')")
    assert "not calibrated: as the model gives them" in tab.page.locator("#facts").inner_text()
    tab.page.wait_for_selector("#drift", state="hidden")
    tab.check()


@browser_only
def test_what_is_no_image_is_refused_kindly(tab: Tab, images: dict[str, bytes]) -> None:
    tab.drop(b"nothing to see", "notes.txt", "text/plain")
    assert "no image that the server can read" in tab.page.wait_for_selector("#problem:not([hidden])").inner_text()
    tab.page.wait_for_selector('#stage[data-state="empty"]')
    tab.drop(images["answered"])
    tab.page.wait_for_selector("#bars button")
    assert tab.page.locator("#problem").is_hidden()
    tab.check(415)


@browser_only
def test_large_images_are_made_smaller_on_their_way(tab: Tab) -> None:
    large = encoded(np.full((3_200, 4_000, 3), 90, dtype=np.uint8))
    tab.drop(large)
    tab.page.wait_for_selector("#bars button")
    sent = tab.page.locator("#picture").evaluate("picture => [picture.naturalWidth, picture.naturalHeight]")
    assert sent == [2048, 1638]
    assert "made smaller" in tab.page.locator("#seen").inner_text()
    tab.check()


@browser_only
def test_the_camera_takes_a_picture(tab: Tab) -> None:
    tab.page.click("#camera")
    tab.page.wait_for_selector("#viewfinder[open]")
    tab.page.locator("#video").evaluate(
        "video => video.readyState > 1 || new Promise(done => video.addEventListener('loadeddata', done))"
    )
    tab.page.click("#take")
    tab.page.wait_for_selector("#bars button")
    assert tab.page.locator("#viewfinder").is_hidden()
    assert tab.page.locator("#video").evaluate("video => video.srcObject") is None  # its light is off
    tab.check()


@browser_only
def test_figures_are_live_while_somebody_looks(tab: Tab, server: Running, images: dict[str, bytes]) -> None:
    server.predict(images["answered"], "?model=digits")
    tab.page.clock.install()
    tab.open()
    tab.page.wait_for_selector("#p50:has-text('ms')")
    assert "of 512" in tab.page.locator("#queue").inner_text()
    assert tab.page.locator("#signals li").count() == 6
    assert "It takes 200 images to tell" in tab.page.locator("#drift-state").inner_text()

    def looks() -> int:
        return len([url for url in tab.requests if "/v1/live" in url])

    with tab.page.expect_response("**/v1/live"):
        tab.page.clock.run_for(2_100)
    tab.page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    before = looks()
    tab.page.clock.run_for(20_000)
    assert looks() == before
    with tab.page.expect_response("**/v1/live"):
        tab.page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    tab.check()


@browser_only
def test_drift_is_told_in_words(tab: Tab, server: Running) -> None:
    images = [encoded(np.full((32, 32, 3), 250, dtype=np.uint8))] * 4
    boundary = "x" * 20
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'.encode()
    body = b"".join(part + image + b"\r\n" for image in images * 60) + f"--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    assert server.ask("/v1/predict?model=digits", body, headers=kind).status == 200
    row = tab.page.locator("#signals li", has_text="brightness")
    row.locator(".drifted").wait_for()
    assert row.inner_text().splitlines()[-1].startswith("drifted · ")
    tab.check()


@browser_only
def test_a_server_with_keys_is_asked_with_one(browser: Any, run: RunDir, images: dict[str, bytes]) -> None:
    with running(Settings(api_keys=(KEY,)), {"digits": run}) as guarded:
        context = browser.new_context(viewport=WIDE)
        tab = Tab(context.new_page(), f"http://127.0.0.1:{guarded.port}/")
        tab.page.goto(tab.url)
        tab.page.wait_for_selector("#key-form:not([hidden])")
        tab.page.fill("#key", "a guess")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#key-form:not([hidden]) #key:focus")
        tab.page.fill("#key", KEY)
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector('#lead:has-text("It tells apart")')
        assert tab.page.locator("#key-form").is_hidden()
        tab.page.wait_for_selector("#tiles img")
        tab.drop(images["answered"])
        tab.page.wait_for_selector("#bars button")
        assert "$LUCIDATE_KEY" in tab.page.locator("#code").inner_text()
        assert KEY not in tab.page.content()
        assert KEY not in " ".join(tab.requests)
        tab.check(401)
        context.close()


@browser_only
def test_a_server_that_has_gone_is_missed_politely(browser: Any, run: RunDir, images: dict[str, bytes]) -> None:
    with running(Settings(), {"digits": run}) as short:
        context = browser.new_context(viewport=WIDE)
        tab = Tab(context.new_page(), f"http://127.0.0.1:{short.port}/").open()
    tab.drop(images["answered"])
    assert "does not answer" in tab.page.wait_for_selector("#problem:not([hidden])").inner_text()
    tab.page.wait_for_selector("#live-state:has-text('No news from the server')")
    context.close()


@browser_only
@pytest.mark.parametrize("name", ["curl", "Python", "tritonclient"])
def test_snippets_do_what_they_say(
    tab: Tab, server: Running, images: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    tab.page.get_by_role("tab", name=name, exact=True).click()
    code = tab.page.locator("#code").inner_text()
    (tmp_path / "photo.jpg").write_bytes(images["answered"])
    command = ["sh", "-c", code] if name == "curl" else [sys.executable, "-W", "error", "-c", code]
    if name == "curl" and not shutil.which("curl"):
        pytest.skip("no curl here")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    best = server.predict(images["answered"], "?model=digits").best
    assert best["label"] in done.stdout
    tab.check()
