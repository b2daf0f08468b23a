"""The page of a comparison: what stands in it. test_browser.py opens it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pairs import HOSTILE, WORDS, Pair, make_pair
from PIL import Image
from reader import Reader

from lucidate.core.errors import PredictionsError
from lucidate.report import theme
from lucidate.report.figures import comparison as drawings
from lucidate.report.site.comparison import TEASERS, build_comparison, describe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair() -> Pair:
    return make_pair()


@pytest.fixture(scope="module")
def page(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pair.build(tmp_path_factory.mktemp("compare") / "page")


def test_the_first_page_holds_both_models_their_flips_and_the_table_of_four(pair: Pair, page: Path) -> None:
    read, compared = Reader(page), pair.compared
    for words in (compared.headline, compared.classes.headline, compared.fixed.headline, compared.broken.headline):
        assert words in read.text
    for number in (compared.both_right, len(compared.fixed), len(compared.broken), compared.both_wrong):
        assert f"{number:,}" in read.text
    assert "a table <i>" in read.text
    assert read.count("fourfold") == 1
    shown = min(TEASERS, len(compared.fixed)) + min(TEASERS, len(compared.broken))
    assert read.count("tile") == shown > TEASERS
    assert read.count("answer") == 2 * shown
    assert f"B {compared.fixed.second.class_names[compared.fixed.second.predicted[0]]}" in read.text


def test_every_address_is_relative_and_leads_somewhere(page: Path) -> None:
    for path in (page, *sorted((page.parent / "docs").iterdir())):
        read = Reader(path)
        for link in read.links:
            if not link.startswith(("data:image/svg+xml", "#")):
                assert not re.match(r"[a-z]+:|/", link)
                assert (path.parent / unquote(link)).exists(), link
        ids = {attributes.get("id") for _, attributes in read.tags}
        assert {link[1:] for link in read.links if link.startswith("#")} <= ids
        for tag, attributes in read.tags:
            assert not [key for key in attributes if key.startswith("on")]
            assert tag != "script" or attributes.get("src")
    assert sorted(path.stem for path in (page.parent / "docs").iterdir()) == ["broken", "fixed"]
    assert "Back to the comparison" in Reader(page.parent / "docs/fixed.html").text


def test_tables_give_back_the_frames(pair: Pair, page: Path) -> None:
    frames = {
        "comparison": pair.compared.frame(),
        "per_class_change": pair.compared.classes.frame(),
        "fixed": pair.compared.fixed.frame(),
        "broken": pair.compared.broken.frame(),
    }
    for name, frame in frames.items():
        read = pd.read_csv(page.parent / "assets/csv" / f"{name}.csv")
        pd.testing.assert_frame_equal(read, frame, check_dtype=False, rtol=1e-13)


def test_the_images_are_found_by_their_ids(pair: Pair, page: Path) -> None:
    script = (page.parent / "assets/data/fixed.js").read_text(encoding="ascii")
    data = json.loads(script.removeprefix("lucidate.page(").removesuffix(");\n"))
    tiles = pair.compared.fixed.first
    assert data["sprite"]["ids"][0] == tiles.ids[0]
    row = int(np.flatnonzero(pair.pack.ids == tiles.ids[0])[0])
    assert row != tiles.index[0]
    with Image.open(page.parent / "assets/sprites/fixed-001.webp") as sprite:
        shown = np.asarray(sprite.convert("RGB").crop((0, 0, 96, 96)).resize((8, 8)), dtype=float)
    means = np.abs(shown.mean(axis=(0, 1)) - pair.pack.images[row].mean(axis=(0, 1)))
    assert means.max() < 6  # enlarged, sharpened and compressed, but this image


def test_the_same_input_gives_the_same_bytes(pair: Pair, page: Path, tmp_path: Path) -> None:
    again = pair.build(tmp_path / "again").parent
    first = {path.relative_to(page.parent): path for path in page.parent.rglob("*") if path.is_file()}
    second = {path.relative_to(again): path for path in again.rglob("*") if path.is_file()}
    assert first.keys() == second.keys()
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes(), name


def test_images_that_are_not_those_of_the_predictions_are_refused(pair: Pair, tmp_path: Path) -> None:
    fewer = replace(pair.pack, ids=np.array([f"other/{name}" for name in pair.pack.ids]))
    with pytest.raises(PredictionsError, match=r"^images: expected those .* received shapes without 'test/"):
        build_comparison(tmp_path / "page", pair.compared, fewer, about=WORDS)
    others = replace(pair.pack, labels=(pair.pack.labels + 1) % 10)
    with pytest.raises(PredictionsError, match=r"^images: expected 'test/.* to be 'class .*are these the images"):
        build_comparison(tmp_path / "page", pair.compared, others, about=WORDS)
    assert not list(tmp_path.iterdir())


def test_without_flips_the_page_says_so(tmp_path: Path) -> None:
    pair = make_pair(3, 90, alike=True)
    read = Reader(pair.build(tmp_path / "page"))
    assert "No image is wrong in weak (A) and right in weak (B)." in read.text
    assert read.count("tile") == 0
    assert "Every class is as accurate" in read.text


def test_names_from_elsewhere_stay_text(tmp_path: Path) -> None:
    pair = make_pair(3, 240, names=(HOSTILE, "line\u2028break\nand $ one", "Käse → 猫"))
    index = pair.build(tmp_path / "page")
    for path in (index, *(index.parent / "docs").iterdir()):
        content = path.read_text(encoding="utf-8")
        assert "<script>alert" not in content
        assert "<b>x</b>" not in content
    assert HOSTILE in Reader(index).text


@pytest.mark.parametrize(("classes", "images"), [(2, 40), (10, 300), (40, 1200), (12, 9)])
def test_changes_draw_in_both_libraries(classes: int, images: int) -> None:
    info = make_pair(classes, images).compared.classes
    figure = drawings.CHANGES.interactive(info)
    json.dumps(figure.to_plotly_json(), allow_nan=False)
    bars = figure.data[0]
    assert len(bars.y) == min((info.total > 0).sum(), drawings.SHOWN)
    assert all(info.total[k] for k in bars.customdata)
    assert list(bars.x) == sorted((100 * info.change[k] for k in bars.customdata), reverse=True)
    assert figure.layout.xaxis.range[0] < 0 < figure.layout.xaxis.range[1]
    for k, color, opacity in zip(bars.customdata, bars.marker.color, bars.marker.opacity, strict=True):
        assert color == (theme.LIGHT.wrong if info.change[k] < 0 else theme.LIGHT.right)
        assert opacity == (1 if info.low[k] > 0 or info.high[k] < 0 else drawings.PALE)
    still = drawings.CHANGES.static(info)
    still.set_dpi(50)
    FigureCanvasAgg(still).draw()
    assert ("the table has all" in drawings.CHANGES.hint(info)) == (classes > drawings.SHOWN)


def test_a_flipped_tile_tells_class_and_both_answers() -> None:
    compared = make_pair().compared
    for flips in (compared.fixed, compared.broken):
        grid = drawings.flips_grid(flips)
        assert grid is not None
        names = flips.first.class_names
        true, a, b = (names[side[0]] for side in (flips.first.labels, flips.first.predicted, flips.second.predicted))
        assert [line.texts[0] for line in grid.captions] == [true, f"A {a}", f"B {b}"]
        assert [line.wrong.all() for line in grid.captions[1:]] == [flips.fixed, not flips.fixed]
        wrong = f"A weak: taken for {a}" if flips.fixed else f"B strong: taken for {b}"
        assert grid.words[0][1].startswith(wrong)  # the page prints this line in the color of errors
        assert grid.words[0][2].split(": ")[1].startswith("recognized")
        assert grid.words[0][-1] == flips.first.ids[0]
        assert not grid.outlined.any()


def test_a_table_has_no_run_card_to_tell_of() -> None:
    assert describe(None) == "a table of predictions"
