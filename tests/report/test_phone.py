"""Comparisons, levels and very many classes on a narrow screen: nothing is cut off, nothing overlaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pairs import make_pair
from test_pdf import LEVELS

from lucidate.report.site.comparison import levels_site
from lucidate.studies.levels_plan import TITLES

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PHONE = {"width": 390, "height": 844}
OUTSIDE = """selector => [...document.querySelectorAll(selector)].filter(part => {
    const box = part.getBoundingClientRect();
    return box.width && (box.left < 0 || box.right > window.innerWidth);
}).map(part => part.textContent)"""
OVERLAPS = """selector => {
    const boxes = [...document.querySelectorAll(selector)].map(part => part.getBoundingClientRect());
    const along = boxes[1].left - boxes[0].left > 2 ? ["left", "width"] : ["top", "height"];
    return boxes.slice(1).filter((box, place) => box[along[0]] - boxes[place][along[0]] < 9).length;
}"""


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    opened = browser.new_context(offline=True, viewport=PHONE)
    yield opened
    opened.close()


def opened(context: Any, path: Path) -> Any:
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("#plot svg.main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    return page


def test_a_comparison_is_whole_on_a_phone(context: Any, tmp_path: Path) -> None:
    pair = make_pair(names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"))
    sides = (replace(pair.compared.first, name="a-network-with-a-rather-long-name-of-its-own"), pair.compared.second)
    long = replace(pair, compared=replace(pair.compared, first=sides[0], second=sides[1]))
    page = opened(context, long.build(tmp_path / "page"))
    assert page.evaluate(OUTSIDE, "#plot text, .fourfold th, .fourfold td, .flips li") == []
    assert page.locator(".fourfold th.sum", has_text="All").count() == 2
    for place in range(2):
        assert page.locator(".fourfold th.sum").nth(place).is_visible()
    heights = page.evaluate("[...document.querySelectorAll('.fourfold tbody th')].map(head => head.innerText.length)")
    assert max(heights) < 12  # "A right", not the whole name a letter a line
    page.close()


def test_levels_are_whole_on_a_phone(context: Any, tmp_path: Path) -> None:
    levels = tuple(replace(level, title=TITLES[level.level]) for level in LEVELS.levels)
    page = opened(context, levels_site(tmp_path / "gallery", replace(LEVELS, levels=levels), title="CIFAR-10"))
    assert page.evaluate(OUTSIDE, "#plot text, .levels th, .levels td, .levels td *") == []
    labels = " ".join(page.locator("#plot .ytick text").all_text_contents())
    for title in TITLES[2].split():
        assert title in labels  # whole, on several lines
    column = page.evaluate("getComputedStyle(document.querySelector('.levels td'), '::before').content")
    assert column == '"Model"'
    page.set_viewport_size({"width": 1280, "height": 900})
    assert page.locator(".levels thead th").first.is_visible()
    page.close()


def test_a_hundred_classes_have_labels_of_their_own(context: Any, case: Callable[..., Any], tmp_path: Path) -> None:
    folder = case(100, 400).build(tmp_path / "gallery").parent
    page = opened(context, folder / "docs/shapes_confusion_matrix.html")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)  # Plotly draws again
        for axis in ("x", "y"):
            assert page.locator(f"#plot .{axis}tick text").count() == 100
            assert page.evaluate(OVERLAPS, f"#plot .{axis}tick text") == 0, (width, axis)
    page.close()


def test_long_pairs_are_whole_on_a_phone(context: Any, case: Callable[..., Any], tmp_path: Path) -> None:
    names = tuple(f"{tree} MAMMOTH WOODS" for tree in ("SEQUOIA", "MAGNOLIA", "MAHOGANY", "WALNUT", "TAMARACK"))
    folder = case(5, 300, names=names, side=8).build(tmp_path / "gallery").parent
    page = opened(context, folder / "docs/shapes_top_confusions.html")
    assert page.evaluate(OUTSIDE, "#plot .ytick text") == []
    assert "→" in page.locator("#plot .ytick text").first.text_content()
    page.close()


def test_a_thousand_classes_are_drawn(context: Any, case: Callable[..., Any], tmp_path: Path) -> None:
    folder = case(1000, 2000, side=8).build(tmp_path / "gallery").parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 15_000_000
    for path in sorted((folder / "docs").glob("*.html")):
        opened(context, path).close()
