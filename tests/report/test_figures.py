from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from lucidate.analysis.summary import TrainingCurve
from lucidate.report import theme
from lucidate.report.figures import confusion, frame, tile_grid
from lucidate.report.figures.catalog import FIGURES
from lucidate.report.figures.entry import FigureEntry
from lucidate.report.sprites import Sprite, make_sprite

CASES = {
    "ten classes": (10, 600, {}),
    "two classes": (2, 200, {}),
    "forty classes": (40, 1200, {}),
    "no errors": (5, 200, {"perfect": True}),
    "fewer images than classes": (12, 8, {}),
    "one image": (2, 1, {}),
}


def sheet_of(entry: FigureEntry, case: Any) -> Sprite | None:
    grid = entry.grid(entry.info(case.findings)) if entry.grid else None
    if grid is None:
        return None
    place = {"ids": grid.ids, "cells": grid.cells, "columns": grid.columns, "gaps": grid.gaps}
    return make_sprite(case.pixels, grid.index, url="sprite.webp", **place)


@pytest.mark.parametrize("name", CASES)
def test_every_figure_draws_in_both_libraries(name: str, case: Callable[..., Any]) -> None:
    classes, images, options = CASES[name]
    drawn = case(classes, images, **options)
    before = dict(mpl.rcParams)
    for entry in FIGURES:
        info = entry.info(drawn.findings)
        assert info is not None
        sprite = sheet_of(entry, drawn)
        figure = entry.interactive(info, sprite)
        json.dumps(figure.to_plotly_json(), allow_nan=False)  # no NaN, no NumPy array, no base64
        assert figure.layout.height > 100
        still = entry.static(info, sprite)
        still.set_dpi(50)  # that it draws is the question, not how it looks
        FigureCanvasAgg(still).draw()
        assert still.get_size_inches()[0] == frame.PNG_WIDTH
    assert dict(mpl.rcParams) == before


def test_no_errors_are_said_and_not_drawn(case: Callable[..., Any]) -> None:
    findings = case(5, 200, perfect=True).findings
    for entry in FIGURES:
        if entry.question in ("top_confusions", "most_confident_wrong", "misclassified"):
            figure = entry.interactive(entry.info(findings))
            words = figure.layout.annotations[0].text.replace("<br>", " ")
            assert words == entry.info(findings).headline


def test_confusion_matrix_cells_carry_their_pair_of_classes(case: Callable[..., Any]) -> None:
    drawn = case(10, 600)
    entry = next(entry for entry in FIGURES if entry.question == "confusion_matrix")
    right, wrong = entry.interactive(drawn.findings.confusion_matrix).data
    counts = drawn.findings.confusion_matrix.counts
    for true, predicted in ((0, 1), (7, 2)):
        assert wrong.customdata[true][predicted] == [true, predicted]
        assert right.z[true][predicted] is None
        assert wrong.text[true][predicted] == (f"{counts[true, predicted]:,}" if counts[true, predicted] else "")
    assert wrong.z[3][3] is None
    assert f"{counts[3, 3]} of {counts[3].sum()} images of" in right.hovertext[3][3]


def test_one_error_of_many_is_paler_than_a_lost_class(case: Callable[..., Any]) -> None:
    shares = case(10, 600).findings.confusion_matrix
    perfect = case(5, 200, perfect=True).findings.confusion_matrix
    errors = shares.normalized[~np.eye(10, dtype=bool)]
    assert confusion.top_of_errors(shares) == errors.max() > 0.05
    assert confusion.top_of_errors(perfect) == 0.05
    assert "vermilion is wrong, darkest at 5.0 %" in confusion.note(perfect)


@pytest.mark.parametrize("top", [1, 3, 7, 12, 18, 90, 5000])
def test_ticks_of_counts_are_whole_and_differ(top: int) -> None:
    _, axes = frame.axes("")
    axes.set_xlim(0, 1.16 * top)
    frame.whole_ticks(axes.xaxis)
    shown = axes.xaxis.get_major_formatter().format_ticks(axes.get_xticks().tolist())
    assert len(set(shown)) == len(shown) > 1
    assert [int(text.replace(",", "")) for text in shown] == axes.get_xticks().tolist()
    assert frame.whole_axis(top).get("dtick", 1) % 1 == 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.52, 0.56), (0.9851, 0.9874), (0.5, 0.5003)])
def test_ticks_of_shares_say_what_they_are(low: float, high: float) -> None:
    _, axes = frame.axes("")
    axes.set_ylim(low, high)
    frame.share_ticks(axes.yaxis)
    values = axes.get_yticks().tolist()
    shown = axes.yaxis.get_major_formatter().format_ticks(values)
    assert len(set(shown)) == len(shown) > 1
    np.testing.assert_allclose([float(text.rstrip("%")) / 100 for text in shown], values, atol=1e-9)


@pytest.mark.parametrize("values", [(0.98,), (1.0,), (0.0, 0.0), (0.531, 0.537, 0.5352), (0.2, 0.9, 1.0)])
def test_an_accuracy_curve_stays_near_its_values(values: tuple[float, ...]) -> None:
    info = TrainingCurve("accuracy", values, values)
    entry = next(entry for entry in FIGURES if entry.question == "accuracy_curve")
    figure = entry.interactive(info)
    low, high = figure.layout.yaxis.range
    assert -0.03 < low < min(values)
    assert max(values) < high < 1.03
    assert figure.layout.xaxis.dtick == 1
    assert entry.static(info).axes[0].get_ylim() == pytest.approx((low, high))


def test_captions_keep_the_percentage_that_hovering_tells() -> None:
    assert tile_grid.caption("→ automobile", "13.5 %") == "→ automobile 13.5 %"
    assert tile_grid.caption("→ a class with a long name", "13.5 %") == "→ a cla…name 13.5 %"
    assert tile_grid.caption("", "99.9 %") == "99.9 %"


def test_text_from_elsewhere_is_escaped() -> None:
    assert theme.plotly_text("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert theme.matplotlib_text("$y$") == r"\$y\$"
    assert theme.shorten("line\u2028break\n", None) == "line break "
    assert theme.shorten("a long name, number 12", 12) == "a long…r 12"


def test_the_palettes_can_be_swapped_color_by_color() -> None:
    swap = theme.dark_of_light()
    assert len(swap) == len(vars(theme.LIGHT))  # no color stands for two roles
    assert "--right: #0e7a88" in theme.css_variables()


def test_a_sheet_is_a_regular_grid_that_its_map_addresses() -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    pixels = np.broadcast_to(colors[:, None, None, :], (3, 8, 8, 3))
    sprite = make_sprite(
        pixels,
        np.array([2, 0, 1]),
        ids=np.array(["blue", "red", "green"]),
        cells=np.array([0, 1, 5]),
        columns=4,
        gaps=(10, 20),
        url="a.webp",
    )
    address = sprite.address()
    assert address["ids"] == ["blue", "red", None, None, None, "green", None, None]
    for cell, color in ((0, colors[2]), (1, colors[0]), (5, colors[1])):
        x = (cell % address["columns"]) * (address["tile"] + address["gap"][0])
        y = (cell // address["columns"]) * (address["tile"] + address["gap"][1])
        assert sprite.image[y + 48, x + 48].tolist() == [*color.tolist(), 255]
        assert sprite.corner(cell) == (x, y)
    assert not sprite.image[:96, 96:106].any()  # gaps are transparent
    assert Image.open(BytesIO(sprite.encoded())).size == (4 * 96 + 30, 2 * 96 + 20)


def test_images_that_are_not_square_keep_their_shape() -> None:
    pixels = np.full((1, 20, 10, 3), 200, dtype=np.uint8)
    one = np.array([0])
    sprite = make_sprite(pixels, one, ids=np.array(["a"]), cells=one, columns=1, gaps=(4, 4), url="a.webp")
    assert (sprite.image[..., 3] > 0).sum() == 96 * 48


def test_report_needs_no_torch() -> None:
    code = "import sys, lucidate.report.site; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
