"""The chapters of results: how good, which classes, how sure, the images themselves, where it looks, the levels."""

from __future__ import annotations

import numpy as np

from lucidate.analysis.formatting import p_value, percent, points
from lucidate.analysis.levels import Level, LevelsTable
from lucidate.analysis.per_class import ClassificationReport
from lucidate.analysis.samples import Misclassified
from lucidate.report import labels
from lucidate.report.figures import confidence, confusion_matrix, tile_layout
from lucidate.report.figures import levels as levels_figure
from lucidate.report.figures import per_class_accuracy as per_class
from lucidate.report.figures import top_confusions as top
from lucidate.report.figures import true_probability as probability
from lucidate.report.pdf import figures
from lucidate.report.pdf.content import Beside, Block, Chapter, Figure, Paragraph, Points, Table, Tile, Tiles
from lucidate.report.pdf.report_data import ReportData, interval_of, of_classes, span
from lucidate.report.site.heatmaps import MEANINGS, overlaid

COLUMNS = 8  # tiles with captions in a row
ALL_SHOWN = 2 * COLUMNS  # mistakes in the sample
NAME, CAPTION = 17, 19  # characters in the two lines under a tile of an eighth of the column
PAIRS = 6  # confusions drawn
FEWEST_PAIRS = 3  # fewer are plain from the matrix
SAMPLES = {
    "misclassified": ALL_SHOWN,
    "most_confident_wrong": COLUMNS,
    "hard_but_correct": COLUMNS,
    "most_confident_right": COLUMNS,
}


def results(data: ReportData) -> Chapter:
    """Accuracies with their intervals, and what is taken for what."""
    findings = data.findings
    blocks: list[Block] = [_accuracies(data)]
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
    blocks.insert(1 if data.classes <= confusion_matrix.MAX_NUMBERED else len(blocks), _confusion_figure(data))
    return Chapter("The results", tuple(blocks))


def classes(data: ReportData) -> Chapter:
    """Accuracy, precision, recall and F1 of each class."""
    info = figures.hardest(data.findings.per_class_accuracy)
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
        of_classes(rows, data.classes, "{} hardest"),
    )
    findings = data.findings
    words = Paragraph(f"{findings.per_class_accuracy.headline} {findings.classification_report.headline}")
    return Chapter("Class by class", (words, Beside(figure, _report_table(data))))


def trust(data: ReportData) -> Chapter:
    """Confidence, right against wrong and class by class."""
    findings = data.findings
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
    right = Figure(findings.true_class_probability.headline, by_class, of_classes(rows, data.classes, "{} lowest"))
    return Chapter("How sure it is", (Beside(left, right),))


def samples(data: ReportData) -> Chapter:
    """Images that the model got wrong, and right."""
    blocks = []
    for question, most in SAMPLES.items():
        if question == "most_confident_wrong" and data.findings.misclassified.pool <= ALL_SHOWN:
            continue  # the sample before it is all of them
        if tiles := _tiles(data, question, most):
            blocks.append(tiles)
    return Chapter("Image by image", tuple(blocks))


def _accuracies(data: ReportData) -> Table:
    """Validation and test, with and without test-time views where there are any."""
    card, summary = data.card, data.findings.summary
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
    asked = "all members" if data.ensemble else "several views averaged" if views else one
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


def _confusion_figure(data: ReportData) -> Figure:
    info = data.findings.confusion_matrix
    k = data.classes
    picture = figures.vector(
        confusion_matrix.draw_matplotlib,
        info,
        width=figures.FULL,
        height=max(1.9, 0.85 + 0.29 * k) if k <= 16 else 5.8 if k <= 30 else 8.2,
        alt="confusion matrix: true class by row, predicted class by column",
    )
    return Figure(info.headline, picture, confusion_matrix.note(info))


def _report_table(data: ReportData) -> Table:
    info: ClassificationReport = data.findings.classification_report
    order = np.argsort(data.findings.per_class_accuracy.accuracy, kind="stable")[: figures.MOST_ROWS].tolist()
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


def _tiles(data: ReportData, question: str, most: int) -> Tiles | None:
    info = getattr(data.findings, question)
    if isinstance(info, Misclassified):
        info = figures.fewer(info, most)
    grid = tile_layout.tiles_grid(info)
    if grid is None:
        return None
    tiles = []
    for position in range(min(len(grid.ids), most)):
        amount = grid.amounts[position]
        second = f"{labels.shorten(grid.second[position], CAPTION - 1 - len(amount))} {amount}".strip()
        picture = figures.tile(np.asarray(data.pixels[grid.index[position]]), alt="; ".join(grid.words[position]))
        first = labels.shorten(grid.first[position], NAME)
        tiles.append(Tile(picture, first, second, bool(grid.wrong[position])))
    total = len(grid.ids) + grid.left_out
    note = f"The first {len(tiles)} of these {total:,}; the gallery shows more." if len(tiles) < total else ""
    return Tiles(f"{figures.entry_of(question).title}. {info.headline}", tuple(tiles), COLUMNS, note=note)


MAP_NAME = 12  # characters of a class under a tile


def where_it_looks(data: ReportData) -> Chapter | None:
    """Images of the first group under their two maps, and the figures behind the verdict; None without heatmaps."""
    info = data.heatmaps
    if info is None:
        return None
    blocks: list[Block] = [
        Paragraph(f"Heatmaps by {info.title}, taken from {info.layer or 'no layer'}. {info.headline}")
    ]
    for group in info.groups[:1]:
        count = min(len(group.tiles), COLUMNS)
        tiles: list[Tile | None] = []
        for maps, peaks, classes in (
            (group.first, group.first_peak, group.tiles.predicted),
            (group.second, group.second_peak, group.other),
        ):
            for position in range(COLUMNS):
                if position >= count:
                    tiles.append(None)
                    continue
                name = labels.shorten(info.class_names[classes[position]], MAP_NAME)
                image = overlaid(np.asarray(data.pixels[group.tiles.index[position]]), maps[position])
                words = "empty map" if peaks[position] == 0 else f"for {name}"
                wrong = bool(classes[position] != group.tiles.labels[position])
                tiles.append(Tile(figures.tile(image, alt=f"heatmap {words}"), words, "", wrong))
        blocks.append(
            Tiles(
                f"{group.title}: above, what speaks for the answer; below, what speaks for the other class",
                tuple(tiles),
                COLUMNS,
            )
        )
    rows = [
        (label, f"{share['mean']:.2f}", f"{share['low']:.2f} to {share['high']:.2f}", meaning)
        for key, label, meaning in MEANINGS
        if (share := info.trust.get(key)) and share["mean"] is not None
    ]
    if rows:
        head = ("Test", "Mean", "95 % interval", "How to read it")
        blocks.append(Table("Whether to trust the heatmaps", head, tuple(rows), "lrrl", wide=3))
    return Chapter("Where it looks", tuple(blocks))


HEAD = ("Level", "What it adds", "Parameters", "Validation", "Test", "Change", "Minutes", "Images/s")


def levels(data: ReportData) -> Chapter | None:
    """The table of the levels and their test accuracies; None for a run that is not one of several."""
    table = data.levels
    if table is None:
        return None
    picture = figures.vector(
        levels_figure.draw_matplotlib,
        table,
        width=figures.FULL,
        alt="test accuracy of each level with its 95 % interval",
    )
    blocks: list[Block] = [_table(table), Figure("Test accuracy, level by level", picture, levels_figure.note(table))]
    if table.notes:
        blocks.append(Points(table.notes))
    return Chapter("The levels", tuple(blocks))


def _table(table: LevelsTable) -> Table:
    rows, indented = [], set()
    for level in table.levels:
        rows.append(_row(level, str(level.level)))
        for position, member in enumerate(level.members, 1):
            indented.add(len(rows))
            rows.append(_row(member, f"{level.level}.{position}"))
    return Table(
        table.headline,
        HEAD,
        tuple(rows),
        "llrrrrrr",
        wide=1,
        indented=frozenset(indented),
        note="Small: 95 % intervals; of the change, McNemar’s exact p against the level before, on the same images. "
        "Minutes are of training, of an ensemble its members’ together; images/s are those shown in training.",
    )


def _row(level: Level, number: str) -> tuple[str, ...]:
    best = level.best_member_test_accuracy
    model = f"{level.model}, {level.origin}"
    if best is not None:
        model += f"; its best member alone {percent(best)}"
    change = "–"
    if level.change is not None:
        change = points(level.change).removesuffix(" points")
        change += f"\n{p_value(level.p)}" if level.p is not None else ""
    return (
        number,
        f"{level.title}\n{model}" if level.title else model,
        f"{level.parameters:,}",
        f"{percent(level.val_accuracy)}\n{span(level.val_low, level.val_high)}",
        f"{percent(level.test_accuracy)}\n{span(level.test_low, level.test_high)}",
        change,
        f"{level.seconds / 60:,.1f}",
        f"{level.images_per_second:,.0f}",
    )
