"""Galleries at the ends: very many classes, one mistake, a class without a test image, names that are formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reader import Reader
from test_pdf import blocks_of, material_of

from lucidate.analysis.findings import analyze
from lucidate.analysis.formatting import percent
from lucidate.report.figures import confusion, frame
from lucidate.report.figures.catalog import FIGURES, figures_of
from lucidate.report.figures.tile_grid import CAPTION_LIMIT, tiles_grid
from lucidate.report.pdf import ending, opening
from lucidate.report.pdf.content import Points, Table
from lucidate.report.site.pages import Table as Numbers
from lucidate.report.theme import escape, short_names

pytestmark = pytest.mark.slow

MANY = 300
MATRIX = next(entry for entry in FIGURES if entry.question == "confusion_matrix")
MEGABYTE = 1_000_000


def with_logits(case: Any, change: Callable[[np.ndarray, np.ndarray], None], *, rows: Any = slice(None)) -> Any:
    """The same case, its logits changed in place by change(logits, labels), only some rows of it."""
    old = case.predictions
    logits, labels = old.logits[rows].copy(), old.labels[rows]
    change(logits, labels)
    predictions = replace(old, ids=old.ids[rows], index=old.index[rows], labels=labels, logits=logits)
    return replace(case, predictions=predictions, findings=analyze(predictions))


def perfect(logits: np.ndarray, labels: np.ndarray) -> None:
    logits[np.arange(len(labels)), labels] += 100


def links_lead_somewhere(folder: Path) -> None:
    for page in (folder / "index.html", *(folder / "docs").iterdir()):
        for link in Reader(page).links:
            if not link.startswith(("data:", "#")):
                assert (page.parent / link).exists(), (page.name, link)


@pytest.fixture(scope="module")
def many(case: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    drawn = case(MANY, 4 * MANY)
    return drawn, drawn.build(tmp_path_factory.mktemp("many") / "gallery").parent


def test_of_many_classes_the_worst_are_drawn_and_files_have_all(many: tuple[Any, Path]) -> None:
    drawn, folder = many
    findings = drawn.findings
    for question, name, worst in (
        ("per_class_accuracy", "shapes_per_class_accuracy", findings.per_class_accuracy.accuracy),
        ("true_class_probability", "shapes_avg_confidence_per_true_class", findings.true_class_probability.mean),
        ("class_distribution", "class_distribution", findings.class_distribution.counts.sum(axis=0)),
    ):
        entry = next(entry for entry in FIGURES if entry.question == question)
        rows = list(entry.interactive(entry.info(findings)).data[-1].customdata)
        assert rows == np.argsort(worst, kind="stable")[: frame.WORST].tolist()
        assert (
            f"Drawn are the 50 classes {'with' if 'dist' in name else 'of'}"
            in Reader(folder / f"docs/{name}.html").text
        )
        assert "of 300; the gallery's CSV file has all" in Reader(folder / f"docs/{name}.html").text
        assert len(pd.read_csv(folder / f"assets/csv/{name}.csv")) == MANY
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 10 * MEGABYTE
    links_lead_somewhere(folder)


def test_of_a_large_matrix_the_most_frequent_confusions_are_drawn(many: tuple[Any, Path]) -> None:
    drawn, folder = many
    info = drawn.findings.confusion_matrix
    shown = confusion.drawn(info)
    assert len(shown) == frame.WORST
    assert (np.diff(shown) > 0).all()
    errors = info.counts - np.diag(np.diag(info.counts))
    true, predicted = np.unravel_index(errors.argmax(), errors.shape)
    assert {true, predicted} <= set(shown.tolist())
    right, wrong = confusion.draw_plotly(info).data
    assert len(wrong.z) == frame.WORST
    row, column = (shown.tolist().index(k) for k in (true, predicted))
    assert list(wrong.customdata[row][column]) == [true, predicted]
    assert wrong.z[row][column] == errors[true, predicted] / info.counts[true].sum()  # of all its images
    table = pd.read_csv(folder / "assets/csv/shapes_confusion_matrix.csv")
    assert table["count"].sum() == info.counts.sum()
    assert table["count"].min() == 1  # only pairs that occur
    assert len(right.z) == len(wrong.z)


def test_without_confusions_a_large_matrix_shows_some_classes(case: Callable[..., Any]) -> None:
    info = with_logits(case(MANY, 4 * MANY), perfect).findings.confusion_matrix
    assert confusion.drawn(info).tolist() == list(range(frame.WORST))


@pytest.mark.parametrize(("errors", "title"), [(0, "No mistakes"), (1, "The only mistake"), (5, "All mistakes")])
def test_few_mistakes_have_one_page(case: Callable[..., Any], tmp_path: Path, errors: int, title: str) -> None:
    def few(logits: np.ndarray, labels: np.ndarray) -> None:
        perfect(logits, labels)
        logits[np.arange(errors), (labels[:errors] + 1) % 4] += 300

    drawn = with_logits(case(4, 80), few)
    folder = drawn.build(tmp_path / "gallery").parent
    about = [entry.title for entry, _ in figures_of(drawn.findings) if entry.group != "The data"]
    assert [name for name in about if "istake" in name or "onfusions" in name] == [title]
    index = Reader(folder / "index.html")
    assert index.links.count("docs/shapes_misclassification_grid.html") == (
        4 if errors else 3
    )  # 2 metrics, teaser, card
    assert index.count("said") == errors
    links_lead_somewhere(folder)
    pairs = folder / "assets/csv/shapes_top_confusions.csv"
    assert (pairs.exists() and len(pd.read_csv(pairs)) > 0) == (errors > 0)


def test_many_mistakes_have_their_pages(case: Callable[..., Any]) -> None:
    findings = case(10, 600).findings
    assert [entry for entry, _ in figures_of(findings)] == list(FIGURES)


@pytest.fixture(scope="module")
def absent(case: Callable[..., Any]) -> Any:
    """Three classes, the last of which has no image here."""
    whole = case(3, 60, names=("cat", "dog", "frog"))
    return with_logits(whole, perfect, rows=whole.predictions.labels < 2)


def test_a_class_without_images_is_said_and_not_drawn(absent: Any, tmp_path: Path) -> None:
    folder = absent.build(tmp_path / "gallery").parent
    page = Reader(folder / "docs/shapes_per_class_accuracy.html").text
    assert "Every class that has test images has the same accuracy, 100.0 %. There are no test images of frog." in page
    for question in ("per_class_accuracy", "true_class_probability"):
        entry = next(entry for entry in FIGURES if entry.question == question)
        info = entry.info(absent.findings)
        assert list(entry.interactive(info).data[-1].customdata) == [0, 1]
        assert [label.get_text() for label in entry.static(info).axes[0].get_yticklabels()] == ["cat", "dog"]
    table = pd.read_csv(folder / "assets/csv/shapes_per_class_accuracy.csv").set_index("class")
    assert np.isnan(table.loc["frog", "accuracy"])
    assert table.loc["frog", "images"] == 0


def test_no_cell_that_holds_nothing_is_tinted(absent: Any) -> None:
    info = replace(absent.findings.confusion_matrix, counts=np.array([[0, 4, 0], [1, 3, 0], [0, 0, 0]]))
    right, wrong = confusion.draw_plotly(info).data
    assert right.z[0][0] is None  # no cat is right: no teal
    assert wrong.z[0][0] == 0
    assert right.z[1][1] == 0.75
    assert all(row[2][k] is None for row in (right.z, wrong.z) for k in range(3))  # nothing is known of frogs
    teal, red = (image.get_array() for image in MATRIX.static(info).axes[0].images)
    assert np.ma.getmaskarray(np.ma.masked_invalid(teal)).tolist() == [[True] * 3, [True, False, True], [True] * 3]
    assert red[0][0] == 0


def test_the_report_says_what_it_knows_nothing_of(absent: Any) -> None:
    material = material_of(absent)
    table = next(block for block in blocks_of(material, Table) if block.head[0] == "Class")
    assert table.rows[-2] == ("frog", "–", "–", "–", "0")
    assert table.rows[-1][:2] == ("mean of 2 of 3 classes", "100.0")
    limits = " ".join(blocks_of(material, Points, chapters=[ending.limits])[-1].points)
    assert "There are no test images of frog. Nothing is known of how well these are recognized." in limits
    assert "The smallest class has 20 test images" in limits
    detail = opening.key_numbers(material)[0].detail
    assert detail.endswith("always the most frequent class: 50.0 %")
    assert "An empty row is a class without images." in confusion.note(absent.findings.confusion_matrix)


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    names = ["=1+1", "+x", "-x", "@sum(A1)", "\tx", "\rx", "plain", "a=b"]
    frame = pd.DataFrame({"class": names, "=split": [-1.5, -1, 0, 1, 2, 3, 4, np.nan], "count": range(8)})
    path = tmp_path / "a.csv"
    path.write_text(Numbers("A", "a", frame).csv(), newline="")
    read = pd.read_csv(path, keep_default_na=False)
    assert read["class"].tolist() == [f"'{name}" for name in names[:5]] + ["' x"] + names[6:]
    assert read.columns.tolist() == ["class", "'=split", "count"]
    assert read["'=split"].tolist()[:2] == ["-1.5", "-1.0"]


def test_a_gallery_of_formulas_has_none_in_its_files(case: Callable[..., Any], tmp_path: Path) -> None:
    folder = case(3, 60, names=("=HYPERLINK(1)", "-2", "@x"), side=8).build(tmp_path / "gallery").parent
    for path in (folder / "assets/csv").iterdir():
        table = pd.read_csv(path)
        for column in table.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]]:
            assert not table[column].str.startswith(("=", "-", "@")).any(), (path.name, column)
    assert "=HYPERLINK(1)" in Reader(folder / "docs/class_distribution.html").text  # a page runs no formulas


def test_labels_keep_what_tells_classes_apart() -> None:
    names = [f"Photographs of the species number {k:04d}" for k in range(200)]
    assert short_names(names)[7] == "…0007"
    assert len(set(short_names(names, 13))) == 200
    few = ["a very long beginning, then cat, and its end", "a very long beginning, then dog, and its end", "owl"]
    assert len(set(short_names(few, 16))) == 3  # the middle, cut first, is where they differ
    assert short_names(few, 16)[2] == "owl"
    assert short_names(["cat", "dog"]) == ["cat", "dog"]
    assert short_names([]) == []
    assert all(len(label) <= 13 for label in short_names([*names, *few], 13))


def test_captions_of_long_names_leave_the_amount_its_own_line(case: Callable[..., Any]) -> None:
    names = tuple(f"Photographs of species {word}" for word in ("Parus major", "Parus ater", "Larus canus"))
    info = case(3, 240, names=names, side=8).findings.misclassified
    long = tiles_grid(info)
    assert long is not None
    first, second, third = (line.lines for line in long.captions)
    assert set(first) <= {"…Parus major", "…Parus ater", "…Larus canus"}
    assert all(line.startswith("→ …") and len(line) <= CAPTION_LIMIT for line in second)
    assert third == [percent(sure) for sure in info.tiles.confidence]
    short = tiles_grid(case(3, 240, names=("cat", "dog", "frog"), side=8).findings.misclassified)
    assert short is not None
    assert len(short.captions) == 2


def test_the_front_page_holds_accuracy_against_the_largest_class(case: Callable[..., Any], tmp_path: Path) -> None:
    whole = case(3, 240, names=("cat", "dog", "frog"), side=8)

    def constant(logits: np.ndarray, _: np.ndarray) -> None:
        logits[:, 0] += 100

    drawn = with_logits(whole, constant)
    page = Reader(drawn.build(tmp_path / "gallery")).text
    assert "No better than always answering cat, the most frequent class, which is right for 33.3 %." in page
    assert "always the most frequent class: 33.3 %" in page


def test_what_would_be_unseen_or_turn_a_page_around_is_printed(case: Callable[..., Any], tmp_path: Path) -> None:
    names = ("left\u202eright", "bell\x07", "mark\u200f", "plain")
    folder = case(4, 240, names=names, side=8).build(tmp_path / "gallery").parent
    for path in (folder / "index.html", *(folder / "docs").iterdir(), *(folder / "assets/data").iterdir()):
        assert not set("\u202e\x07\u200f") & set(path.read_text(encoding="utf-8")), path.name
        assert "\\u202e" not in path.read_text(encoding="utf-8"), path.name  # in a figure
    assert "left‹U+202E›right" in Reader(folder / "docs/class_distribution.html").text
    assert escape("Käse → 猫\u200d<") == "Käse → 猫\u200d&lt;"  # a joiner is part of some scripts' words
