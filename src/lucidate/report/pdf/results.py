"""The chapters of results: how good, which classes, how sure, and the images themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lucidate.analysis.formatting import percent
from lucidate.analysis.per_class import ClassificationReport
from lucidate.analysis.samples import Misclassified
from lucidate.report import labels
from lucidate.report.figures import confidence, confusion_matrix, tile_layout
from lucidate.report.figures import per_class_accuracy as per_class
from lucidate.report.figures import top_confusions as top
from lucidate.report.figures import true_probability as probability
from lucidate.report.figures.tile_layout import TileGrid
from lucidate.report.pdf import figures
from lucidate.report.pdf.content import Beside, Block, Chapter, Figure, Paragraph, Table, Tile, Tiles
from lucidate.report.pdf.report_data import ReportData, interval_of, of_classes, span

COLUMNS = 8  # tiles with captions in a row
ALL_SHOWN = 2 * COLUMNS  # mistakes in the sample
NAME, CAPTION = 17, 19  # characters in the two lines under a tile of an eighth of the column
PAIRS = 6  # confusions drawn
FEWEST_PAIRS = 3  # fewer are plain from the matrix
SAMPLES = (
    ("misclassified", ALL_SHOWN, tile_layout.misclassified_grid),
    ("most_confident_wrong", COLUMNS, tile_layout.confident_grid),
    ("hard_but_correct", COLUMNS, tile_layout.hard_grid),
    ("most_confident_right", COLUMNS, tile_layout.confident_grid),
)


def results(material: ReportData) -> Chapter:
    """Accuracies with their intervals, and what is taken for what."""
    findings = material.findings
    blocks: list[Block] = [_accuracies(material)]
    info = figures.most_frequent(findings.top_confusions, PAIRS)
    if len(info.counts) >= FEWEST_PAIRS:
        picture = figures.vector(
            top.draw_matplotlib,
            info,
            width=figures.FULL,
            height=figures.rows_height(len(info.counts)),
            alt="the most frequent confusions",
        )
        blocks.append(Figure(info.headline, picture, "Each way by itself; in brackets the share of the true class."))
    # A matrix without numbers takes a page of its own: what is smaller comes before it.
    blocks.insert(1 if material.classes <= confusion_matrix.MAX_NUMBERED else len(blocks), _confusion_figure(material))
    return Chapter("The results", tuple(blocks))


def classes(material: ReportData) -> Chapter:
    """Accuracy, precision, recall and F1 of each class."""
    info = figures.hardest(material.findings.per_class_accuracy)
    rows = len(info.class_names)
    picture = figures.vector(
        per_class.draw_matplotlib,
        info,
        width=figures.HALF,
        height=figures.rows_height(rows, legend=True),
        alt="accuracy of each class with its 95 % interval",
    )
    figure = Figure(
        "Accuracy, with its 95 % interval",
        picture,
        of_classes(rows, material.classes, "{} hardest"),
    )
    findings = material.findings
    words = Paragraph(f"{findings.per_class_accuracy.headline} {findings.classification_report.headline}")
    return Chapter("Class by class", (words, Beside(figure, _report_table(material))))


def trust(material: ReportData) -> Chapter:
    """Confidence, right against wrong and class by class."""
    findings = material.findings
    histogram = figures.vector(
        confidence.draw_matplotlib,
        findings.confidence,
        width=figures.HALF,
        height=2.35,
        alt="confidence of right and of wrong predictions",
    )
    shown = figures.least_probable(findings.true_class_probability)
    rows = len(shown.class_names)
    by_class = figures.vector(
        probability.draw_matplotlib,
        shown,
        width=figures.HALF,
        height=max(2.35, figures.rows_height(rows, legend=True)),
        alt="mean and median probability of the true class",
    )
    left = Figure(findings.confidence.headline, histogram)
    right = Figure(findings.true_class_probability.headline, by_class, of_classes(rows, material.classes, "{} lowest"))
    return Chapter("How sure it is", (Beside(left, right),))


def samples(material: ReportData) -> Chapter:
    """Images that the model got wrong, and right."""
    blocks = []
    for question, most, grid_of in SAMPLES:
        if question == "most_confident_wrong" and material.findings.misclassified.pool <= ALL_SHOWN:
            continue  # the sample before it is all of them
        if tiles := _tiles(material, question, most, grid_of):
            blocks.append(tiles)
    return Chapter("Image by image", tuple(blocks))


def _accuracies(material: ReportData) -> Table:
    """Validation and test, with and without test-time views where there are any."""
    card, summary = material.card, material.findings.summary
    found = card.results
    views = card.recipe.predict.views != "one"
    rows = []

    def row(split: str, accuracy: float | None, how: str) -> None:
        size = card.split.sizes.get(split, 0)
        if accuracy is not None and size:
            low, high = interval_of(accuracy, size)
            errors = size - round(accuracy * size)
            rows.append((split, how, f"{size:,}", f"{errors:,}", percent(accuracy), span(low, high)))

    one = "one view"
    asked = "all members" if material.ensemble else "several views averaged" if views else one
    row("validation", found.val_accuracy, asked)
    row("validation", found.val_accuracy_one_view, one)
    row("test", found.test_accuracy, asked)
    row("test", found.test_accuracy_one_view, one)
    if not rows:  # of a run whose run card does not say
        amounts = (f"{summary.images:,}", f"{summary.errors:,}", percent(summary.accuracy))
        rows = [(summary.split, asked, *amounts, span(summary.low, summary.high))]
    return Table(
        summary.headline,
        ("Split", "Asked with", "Images", "Mistakes", "Accuracy", "95 % interval"),
        tuple(rows),
        "llrrrr",
        wide=1,
        note="Wilson's intervals: where the accuracy lies that more images of the same kind would show.",
    )


def _confusion_figure(material: ReportData) -> Figure:
    info = material.findings.confusion_matrix
    k = material.classes
    picture = figures.vector(
        confusion_matrix.draw_matplotlib,
        info,
        width=figures.FULL,
        height=max(1.9, 0.85 + 0.29 * k) if k <= 16 else 5.8 if k <= 30 else 8.2,
        alt="confusion matrix: true class by row, predicted class by column",
    )
    return Figure(info.headline, picture, confusion_matrix.note(info))


def _report_table(material: ReportData) -> Table:
    info: ClassificationReport = material.findings.classification_report
    order = np.argsort(material.findings.per_class_accuracy.accuracy, kind="stable")[: figures.MOST_ROWS].tolist()
    names = labels.short_names([info.class_names[k] for k in order], figures.NAME_LIMIT)
    rows = [
        (name, *(_score(scores[k]) for scores in (info.precision, info.recall, info.f1)), f"{info.support[k]:,}")
        for k, name in zip(order, names, strict=True)
    ]
    means = [_score(mean) for mean in info.means]
    judged = int((info.support > 0).sum())
    which = "all classes" if judged == len(info.support) else f"{judged:,} of {len(info.support):,} classes"
    rows.append((f"mean of {which}", *means, f"{info.support.sum():,}"))
    return Table(
        "Precision, recall and F1, in percent",
        ("Class", "Precision", "Recall", "F1", "Images"),
        tuple(rows),
        "lrrrr",
    )


def _score(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f}"


def _tiles(material: ReportData, question: str, most: int, grid_of: Callable[[Any], TileGrid | None]) -> Tiles | None:
    info = getattr(material.findings, question)
    if isinstance(info, Misclassified):
        info = figures.fewer(info, most)
    grid = grid_of(info)
    if grid is None:
        return None
    tiles = []
    for place in range(min(len(grid.ids), most)):
        amount = grid.amounts[place]
        second = f"{labels.shorten(grid.second[place], CAPTION - 1 - len(amount))} {amount}".strip()
        picture = figures.tile(np.asarray(material.pixels[grid.index[place]]), alt="; ".join(grid.words[place]))
        first = labels.shorten(grid.first[place], NAME)
        tiles.append(Tile(picture, first, second, bool(grid.wrong[place])))
    total = len(grid.ids) + grid.left_out
    note = f"The first {len(tiles)} of these {total:,}; the gallery shows more." if len(tiles) < total else ""
    return Tiles(f"{figures.entry_of(question).title}. {info.headline}", tuple(tiles), COLUMNS, note=note)
