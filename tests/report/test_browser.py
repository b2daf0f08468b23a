"""The gallery in a real browser, opened from the disk with networking off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from pairs import make_pair

from lucidate.analysis.heatmaps import Heatmaps, group_of, images_to_explain
from lucidate.report.site.gallery import About, build_gallery

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


class Tab:
    """A page that remembers what went wrong and what was asked for."""

    def __init__(self, context: Any, root: Path) -> None:
        self.page = context.new_page()
        self.root = root
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.faults.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        self.page.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, name: str) -> Any:
        self.page.goto((self.root / name).as_uri())
        if name == "index.html":  # its pictures come when they are scrolled to; here at once
            self.page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
            self.page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth)")
        else:
            self.page.wait_for_selector("#plot svg.main-svg")
        return self.page

    def check(self) -> None:
        """No fault so far, and nothing asked for outside the folder."""
        assert self.faults == []
        for request in self.requests:
            if not request.startswith("data:"):
                assert urlsplit(request).scheme == "file"
                assert Path(unquote(urlsplit(request).path)).is_relative_to(self.root)


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    """One for all tests, so that scripts stay compiled; what a page stored is forgotten after each."""
    opened = browser.new_context(offline=True, viewport=WIDE, color_scheme="light")
    yield opened
    opened.close()


@pytest.fixture
def tab(context: Any, gallery: Path) -> Iterator[Tab]:
    opened = Tab(context, gallery)
    yield opened
    opened.page.evaluate("localStorage.clear()")
    opened.page.close()


def overflow(page: Any) -> int:
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def test_every_page_draws_its_figure_and_fits_a_phone(tab: Tab) -> None:
    for path in sorted((tab.root / "docs").glob("*.html")):
        tab.page.set_viewport_size(WIDE)
        page = tab.open(f"docs/{path.name}")
        box = page.locator(".js-plotly-plot svg.main-svg").first.bounding_box()
        assert box["width"] > 300, path.name
        assert box["height"] > 200
        assert page.title()
        sources = "[...document.querySelectorAll('#plot svg image')].map(image => image.href.baseVal)"
        images = [source for source in page.evaluate(sources) if source.endswith(".webp")]
        assert len(images) == (1 if "grid" in path.stem or "top_1" in path.stem or "examples" in path.stem else 0)
        for image in images:
            width = page.evaluate(
                "url => new Promise(done => { const i = new Image(); i.onload = i.onerror = () => done(i.naturalWidth);"
                " i.src = url; })",
                image,
            )
            assert width > 900
        assert page.locator(".modebar-btn--logo").count() == 0
        assert page.locator('[data-title="Share chart..."]').count() == 0  # an upload to a server
        assert overflow(page) <= 0
        page.set_viewport_size(PHONE)
        page.wait_for_function("window.innerWidth === 360")
        assert overflow(page) <= 0, path.name
    tab.check()


def test_the_first_page_fits_a_phone_and_loads_its_pictures(tab: Tab) -> None:
    page = tab.open("index.html")
    assert page.locator("a.card").count() == 13
    assert overflow(page) <= 0
    page.set_viewport_size(PHONE)
    page.wait_for_function("window.innerWidth === 360")
    assert overflow(page) <= 0
    page.locator("a.card").first.click()
    page.wait_for_selector("#plot svg.main-svg")
    tab.check()


def test_hovering_a_tile_tells_what_it_is(tab: Tab, large_case: Any) -> None:
    tiles = large_case.findings.misclassified.tiles
    page = tab.open("docs/shapes_misclassification_grid.html")
    layer = page.locator("#plot .nsewdrag").bounding_box()
    page.mouse.move(layer["x"] + 56, layer["y"] + 56)
    text = page.wait_for_selector(".hoverlayer .hovertext").text_content()
    assert tiles.ids[0] in text
    assert tiles.class_names[tiles.labels[0]] in text
    assert f"taken for {tiles.class_names[tiles.predicted[0]]}" in text
    tab.check()


def test_a_tile_opens_and_arrows_walk_on(tab: Tab, large_case: Any) -> None:
    tiles = large_case.findings.misclassified.tiles
    page = tab.open("docs/shapes_misclassification_grid.html")
    layer = page.locator("#plot .nsewdrag").bounding_box()
    page.mouse.move(layer["x"] + 56, layer["y"] + 56)
    page.wait_for_selector(".hoverlayer .hovertext")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("dialog[open]")
    assert tiles.ids[0] in page.locator("dialog").inner_text()
    page.keyboard.press("ArrowRight")
    assert tiles.ids[1] in page.locator("dialog").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")
    assert page.url.endswith("shapes_misclassification_grid.html")
    tab.check()


def test_the_theme_changes_page_and_figure_and_stays(tab: Tab) -> None:
    page = tab.open("docs/shapes_confusion_matrix.html")

    def look() -> tuple[str, str]:
        return (
            page.evaluate("getComputedStyle(document.body).backgroundColor"),
            page.evaluate("document.getElementById('plot')._fullLayout.font.color"),
        )

    light = look()
    page.click("#theme")
    page.wait_for_function("document.getElementById('plot')._fullLayout.font.color !== '#1c2127'")
    dark = look()
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.reload()
    page.wait_for_selector("#plot svg.main-svg")
    assert look() == dark
    tab.check()


def test_buttons_switch_counts_and_shares(tab: Tab, large_case: Any) -> None:
    counts = large_case.findings.confusion_matrix.counts
    page = tab.open("docs/shapes_confusion_matrix.html")
    assert f"{counts[0, 0]:,}" in page.locator("#plot .heatmap-label").first.text_content()
    page.get_by_role("button", name="% of true class").click()
    page.wait_for_function(
        "text => document.querySelector('#plot .heatmap-label').textContent.includes(text)",
        arg=f"{100 * counts[0, 0] / counts[0].sum():.1f}",
    )
    page.click("#theme")  # a new theme keeps the view
    page.wait_for_timeout(200)
    assert page.locator(".views button[aria-pressed=true]").text_content() == "% of true class"
    assert "." in page.locator("#plot .heatmap-label").first.text_content()
    tab.check()


def test_arrow_keys_turn_the_pages(tab: Tab) -> None:
    page = tab.open("docs/class_distribution.html")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/examples_per_class.html")
    page.wait_for_selector("#plot svg.main-svg")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**/class_distribution.html")
    page.wait_for_selector("#plot svg.main-svg")
    tab.check()


def test_hostile_names_are_shown_and_never_run(context: Any, hostile_gallery: Path) -> None:
    tab = Tab(context, hostile_gallery)
    tab.open("index.html")
    for name in ("shapes_confusion_matrix", "examples_per_class", "shapes_misclassification_grid"):
        page = tab.open(f"docs/{name}.html")
        assert "<b>x</b>" in page.locator("#plot").text_content()
    page.get_by_role("button", name="Look closer").click()
    assert '<b>x</b> & "$y$" <script>alert(1)</script>' in page.locator("dialog").inner_text()
    tab.check()
    tab.page.close()


def test_where_nothing_is_to_show_the_card_is_calm(context: Any, perfect_gallery: Path) -> None:
    tab = Tab(context, perfect_gallery)
    page = tab.open("docs/shapes_misclassification_grid.html")
    box = page.locator("#plot svg.main-svg").first.bounding_box()
    card = page.locator(".figure").bounding_box()
    assert card["width"] - 60 < box["width"] < card["width"]
    assert box["height"] <= 260
    assert page.locator(".modebar").count() == 0
    assert page.locator("details").count() == 0
    tab.check()
    tab.page.close()


def test_counts_and_shares_have_ticks_of_their_own(tab: Tab) -> None:
    page = tab.open("docs/shapes_confidence_hist.html")

    def labels() -> list[str]:
        return page.locator("#plot .ytick text").all_text_contents()

    shares = labels()
    assert all(label.endswith("%") for label in shares)
    page.get_by_role("button", name="Count").click()
    page.wait_for_function("!document.querySelector('#plot .ytick text').textContent.endsWith('%')")
    assert all(label.replace(",", "").isdigit() for label in labels())
    page.get_by_role("button", name="Share of group").click()
    page.wait_for_function("document.querySelector('#plot .ytick text').textContent.endsWith('%')")
    assert labels() == shares
    tab.check()


def test_what_a_phone_cuts_off_is_hinted_at(tab: Tab) -> None:
    page = tab.open("docs/shapes_misclassification_grid.html")
    assert page.locator("#swipe").is_hidden()
    page.set_viewport_size(PHONE)
    page.wait_for_selector("#swipe", state="visible")
    page.wait_for_selector(".scroller.more")
    page.evaluate("document.getElementById('scroller').scrollLeft = 5000")
    page.wait_for_selector("#scroller:not(.more)")
    tab.open("docs/shapes_confusion_matrix.html")  # ten classes fit
    assert page.locator("#swipe").is_hidden()
    tab.check()


def test_heatmaps_fade_and_fit_a_phone(context: Any, large_case: Any, tmp_path: Path) -> None:
    predictions, pixels = large_case.predictions, large_case.pixels
    generator = np.random.default_rng(0)
    chosen = images_to_explain(predictions)
    maps = [generator.random((2, len(rows), 4, 4), dtype=np.float32) for _, _, rows, _ in chosen]
    maps[0][0, 0] = 0  # an empty one
    info = Heatmaps(
        method="gradcam",
        layer="blocks.2",
        split="test",
        images=len(predictions),
        empty=1,
        class_names=predictions.class_names,
        verdict="deserve trust",
        trust={"pointing": {"mean": 0.6, "low": 0.5, "high": 0.7, "count": 64}},
        mean_maps=generator.random((10, 4, 4), dtype=np.float32),
        center=np.full(10, 0.25),
        groups=tuple(
            group_of(predictions, group, first=first, second=second)
            for group, (first, second) in zip(chosen, maps, strict=True)
        ),
    )
    path = build_gallery(
        tmp_path / "gallery",
        predictions,
        large_case.findings,
        pixels,
        about=About(title="shapes", model="compact", facts=()),
        heatmaps=info,
    )
    tab = Tab(context, path.parent)
    tab.page.set_viewport_size(WIDE)
    page = tab.page
    page.goto((path.parent / "docs/heatmaps.html").as_uri())
    assert page.locator(".heatmaps li").count() == sum(len(group.tiles) for group in info.groups)
    assert page.locator("h1").inner_text() == "Heatmaps by Grad-CAM"
    assert page.locator("figcaption", has_text="empty").count() == 1
    opacity = "getComputedStyle(document.querySelector('.map')).opacity"
    for place in ("0", "100"):
        page.locator("#fade").fill(place)
        assert page.evaluate(opacity) == str(int(place) // 100)
    assert float(page.evaluate("parseFloat(getComputedStyle(document.querySelector('.part + .part')).marginTop)")) > 40
    assert overflow(page) <= 0
    page.set_viewport_size(PHONE)
    page.wait_for_function("window.innerWidth === 360")
    assert overflow(page) <= 0
    tab.check()
    page.close()


def test_a_comparison_opens_with_its_chart_and_both_grids(context: Any, tmp_path: Path) -> None:
    tab = Tab(context, make_pair().build(tmp_path / "page").parent)
    page = tab.open("index.html")
    page.wait_for_selector("#plot svg.main-svg")
    assert page.locator("#plot .barlayer .point").count() == 10
    for size in (WIDE, PHONE):
        page.set_viewport_size(size)
        page.wait_for_function(f"window.innerWidth === {size['width']}")
        assert overflow(page) <= 0
    page.locator("#fixed .more").click()
    page.wait_for_url("**/fixed.html")
    page.wait_for_selector("#plot svg.main-svg")
    page.get_by_role("button", name="Look closer").click()
    assert "A weak: taken for" in page.locator("dialog").inner_text()
    tab.check()
    tab.page.close()
