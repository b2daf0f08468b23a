from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reader import Reader

from lucidate.core.errors import PredictionsError
from lucidate.report.figures import confusion
from lucidate.report.site import site
from lucidate.report.site.pages import Card, Table, write_figure_page
from lucidate.report.sprites import make_sprite

NAMES = [
    "class_distribution",
    "examples_per_class",
    "shapes_acc",
    "shapes_avg_confidence_per_true_class",
    "shapes_confidence_hist",
    "shapes_confusion_matrix",
    "shapes_hard_prediction_grid",
    "shapes_loss",
    "shapes_misclassification_grid",
    "shapes_per_class_accuracy",
    "shapes_top_1_percent_correct_predictions",
    "shapes_top_1_percent_wrong_predictions",
    "shapes_top_confusions",
]
MEGABYTE = 1_000_000


def pages(gallery: Path) -> list[Path]:
    return [gallery / "index.html", *sorted((gallery / "docs").glob("*.html"))]


def data_of(gallery: Path, name: str) -> dict[str, Any]:
    script = (gallery / "assets/data" / f"{name}.js").read_text(encoding="ascii")
    assert script.startswith("lucidate.page(")
    assert script.endswith(");\n")
    return json.loads(script.removeprefix("lucidate.page(").removesuffix(");\n"))


def test_thirteen_pages_and_pictures(gallery: Path) -> None:
    assert sorted(page.stem for page in (gallery / "docs").iterdir()) == NAMES
    assert sorted(picture.name for picture in (gallery / "plots").iterdir()) == [f"{name}.png" for name in NAMES]
    assert (gallery / ".nojekyll").exists()
    assert not list(gallery.parent.glob(".gallery*"))


def test_pictures_are_sharp_and_small(gallery: Path) -> None:
    for picture in (gallery / "plots").iterdir():
        with Image.open(picture) as image:
            assert image.width == 1600
            assert image.mode == "P"
            assert not image.info.get("Software")
            assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_the_whole_folder_stays_small(gallery: Path) -> None:
    sizes = {path: path.stat().st_size for path in gallery.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 8.2 * MEGABYTE
    assert len([path for path in sizes if path.name == "plotly.min.js"]) == 1


def test_every_address_is_relative_and_leads_somewhere(gallery: Path) -> None:
    for page in pages(gallery):
        links = Reader(page).links
        assert links
        for link in links:
            if not link.startswith(("data:image/svg+xml", "#")):
                assert not re.match(r"[a-z]+:|/", link)
                assert (page.parent / unquote(link)).exists(), link
    everything = {f"docs/{name}.html" for name in NAMES} | {f"plots/{name}.png" for name in NAMES}
    assert everything <= set(Reader(gallery / "index.html").links)


def test_no_handlers_stand_in_the_pages(gallery: Path) -> None:
    for page in pages(gallery):
        for tag, attributes in Reader(page).tags:
            assert not [key for key in attributes if key.startswith("on")]
            assert tag != "script" or attributes.get("src")
            assert tag != "img" or {"width", "height", "alt"} <= attributes.keys()


def test_sprites_are_one_file_a_grid_with_a_map(gallery: Path) -> None:
    for name in NAMES:
        data = data_of(gallery, name)
        text = json.dumps(data)
        assert "base64" not in text
        assert "bdata" not in text
        if data["sprite"] is None:
            continue
        sprite = data["sprite"]
        assert list(sprite) == ["sheet", "columns", "tile", "gap", "ids"]
        with Image.open(gallery / "docs" / sprite["sheet"]) as image:
            rows = len(sprite["ids"]) // sprite["columns"]
            assert image.width == sprite["columns"] * (sprite["tile"] + sprite["gap"][0]) - sprite["gap"][0]
            assert image.height == rows * (sprite["tile"] + sprite["gap"][1]) - sprite["gap"][1]
        assert data["figure"]["layout"]["images"][0]["source"] == sprite["sheet"]
    assert len(list((gallery / "assets/sprites").iterdir())) == 5


def test_tables_give_back_the_frames(gallery: Path, large_case: Any) -> None:
    findings = large_case.findings
    frames = {
        "shapes_confusion_matrix": findings.confusion_matrix.frame(),
        "shapes_per_class_accuracy": findings.per_class_accuracy.frame(),
        "shapes_per_class_accuracy_report": findings.classification_report.frame(),
        "shapes_misclassification_grid": findings.misclassified.frame(),
        "shapes_acc": findings.accuracy_curve.frame(),
        "class_distribution": findings.class_distribution.frame(),
    }
    for name, frame in frames.items():
        read = pd.read_csv(gallery / "assets/csv" / f"{name}.csv")
        pd.testing.assert_frame_equal(read, frame, check_dtype=False, rtol=1e-13)


def test_each_page_says_its_finding_and_shows_its_numbers(gallery: Path, large_case: Any) -> None:
    page = Reader(gallery / "docs/shapes_per_class_accuracy.html")
    assert large_case.findings.per_class_accuracy.headline in page.text
    assert [tag for tag, _ in page.tags].count("table") == 2
    assert "macro average" in page.text
    index = Reader(gallery / "index.html").text
    assert large_case.findings.summary.headline in index
    assert "5 images were set aside & never seen." in index
    assert "Most frequent confusion" in index


def test_names_from_elsewhere_stay_text(hostile_gallery: Path, hostile_case: Any) -> None:
    name = hostile_case.predictions.class_names[0]
    for page in pages(hostile_gallery):
        content = page.read_text(encoding="utf-8")
        assert "<script>alert" not in content
        assert "<b>x</b>" not in content
    assert "shapes <i>" in Reader(hostile_gallery / "index.html").text
    for data in (hostile_gallery / "assets/data").iterdir():
        script = data.read_text(encoding="ascii")  # so U+2028 is an escape
        assert "</script" not in script
        assert "<script" not in script or "&lt;script" in script
    ticks = data_of(hostile_gallery, "class_distribution")["figure"]["layout"]["yaxis"]["ticktext"]
    assert ticks[0].startswith("&lt;b&gt;x&lt;/b&gt; &amp;")
    table = pd.read_csv(hostile_gallery / "assets/csv/class_distribution.csv")
    assert table["class"][0] == name


def test_the_same_input_gives_the_same_bytes(hostile_gallery: Path, hostile_case: Any, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    (folder / "old.txt").write_text("of an older gallery")
    index = hostile_case.build(folder)
    assert index == folder / "index.html"
    first = {path.relative_to(hostile_gallery): path for path in hostile_gallery.rglob("*") if path.is_file()}
    second = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    assert first.keys() == second.keys()
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes(), name


def test_a_failure_leaves_the_old_gallery(hostile_case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, *, photographs: bool) -> None:  # noqa: ARG001 (the name is called)
        raise OSError("disk full")

    monkeypatch.setattr(site, "png_of", fail)
    folder = tmp_path / "gallery"
    folder.mkdir()
    (folder / "index.html").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        hostile_case.build(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["gallery", "index.html"]


def test_pixels_that_are_not_the_images_are_refused(hostile_case: Any, tmp_path: Path) -> None:
    for pixels in (hostile_case.pixels[:1], hostile_case.pixels / 255, hostile_case.pixels[..., :1]):
        with pytest.raises(PredictionsError, match=r"^pixels: expected uint8 images of shape \(N, H, W, 3\)"):
            replace(hostile_case, pixels=pixels).build(tmp_path / "gallery")
    assert not list(tmp_path.iterdir())


def test_without_history_and_without_errors(perfect_gallery: Path) -> None:
    index = perfect_gallery / "index.html"
    names = {page.stem for page in (perfect_gallery / "docs").iterdir()}
    folded = {"shapes_top_confusions", "shapes_top_1_percent_wrong_predictions"}
    assert names == set(NAMES) - {"shapes_acc", "shapes_loss"} - folded
    page = Reader(index)
    assert "None of 80 images is misclassified." in page.text
    assert "Its surest mistakes" not in page.text
    assert all((index.parent / link).exists() for link in page.links if not link.startswith(("data:", "#")))


def test_a_percent_sign_stays_with_its_number(gallery: Path) -> None:
    for page in pages(gallery):
        body = page.read_text(encoding="utf-8").partition("<main")[2]
        shown = re.sub(r"<[^>]*>", "", body)  # attributes may keep plain spaces
        assert not re.search(r"\d %", shown), page.name


def test_the_matrix_says_how_its_colors_are_read(gallery: Path, large_case: Any) -> None:
    note = confusion.note(large_case.findings.confusion_matrix)
    assert note in Reader(gallery / "docs/shapes_confusion_matrix.html").text


@pytest.mark.parametrize(
    ("side", "words"),
    [(32, "enlarged from 32×32"), (96, "as they are stored, in 96×96"), (128, "reduced from 128×128")],
)
def test_a_grid_says_how_its_images_were_scaled(side: int, words: str, tmp_path: Path) -> None:
    one = np.array([0])
    pixels = np.zeros((1, side, side, 3), dtype=np.uint8)
    sprite = make_sprite(pixels, one, ids=np.array(["a"]), cells=one, columns=1, gaps=(4, 4), url="a.webp")
    card = Card("a", "A", "G", "H", "grid", "misclassified", (1600, 900), sprite=sprite, left_out=1)
    (tmp_path / "docs").mkdir()
    write_figure_page(tmp_path, [card], 0, tables=[Table("A", "a", pd.DataFrame({"x": [0.99996]}))], title="t")
    page = (tmp_path / "docs/a.html").read_text(encoding="utf-8")
    assert f"Shown {words}" in page
    assert "1 more is in the table" in page
    assert "<span>1 row</span>" in page
    assert "0.9999" in page
