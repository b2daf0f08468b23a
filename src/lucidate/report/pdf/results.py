"""The chapters of results: how good, which classes, how sure, the images themselves, where it looks, the levels."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np

from lucidate.analysis.formatting import p_value, percent, points, span
from lucidate.analysis.samples import Misclassified
from lucidate.analysis.statistics import share_interval
from lucidate.analysis.studies import Level, LevelsTable
from lucidate.report.figures import confusion
from lucidate.report.figures.tile_grid import tiles_grid
from lucidate.report.pdf import content
from lucidate.report.pdf.content import Beside, Block, Chapter, Points, ReportData, Table, Tile, Tiles
from lucidate.report.site.heatmaps import measured, overlaid
from lucidate.report.theme import short_names, shorten

COLUMNS = 8  # tiles with captions in a row
ALL_SHOWN = 2 * COLUMNS  # mistakes in the sample
NAME, CAPTION = 17, 19  # characters in the two lines under a tile of an eighth of the column
PAIRS = 6  # confusions drawn
TRUST_HEIGHT = 2.35  # inches
FEWEST_PAIRS = 3  # fewer are plain from the matrix
SAMPLES = {
    "misclassified": ALL_SHOWN,
    "most_confident_wrong": COLUMNS,
    "hard_but_correct": COLUMNS,
    "most_confident_right": COLUMNS,
}


def results(data: ReportData) -> Chapter:
    """Accuracies with their intervals, and what is taken for what."""
    matrix, info, k = data.findings.confusion_matrix, data.findings.top_confusions, data.classes
    blocks: list[Block] = [_accuracies(data)]
    first = np.argsort(-info.counts, kind="stable")[:PAIRS]
    info = replace(info, true=info.true[first], predicted=info.predicted[first], counts=info.counts[first])
    if len(first) >= FEWEST_PAIRS:
        note, height = "Each way by itself; in brackets the share of the true class.", content.rows_height(len(first))
        blocks.append(content.drawn("top_confusions", info, info.headline, height=height, note=note))
    height = max(1.9, 0.85 + 0.29 * k) if k <= 16 else 5.8 if k <= 30 else 8.2
    figure = content.drawn("confusion_matrix", matrix, matrix.headline, height=height)
    # A matrix without numbers takes a page of its own: what is smaller comes before it.
    blocks.insert(1 if k <= confusion.MAX_NUMBERED else len(blocks), figure)
    return Chapter("The results", tuple(blocks))


def classes(data: ReportData) -> Chapter:
    """Accuracy, precision, recall and F1 of each class."""
    findings, info = data.findings, data.findings.per_class_accuracy
    caption = "Accuracy, with its 95 % interval"
    figure = content.of_classes("per_class_accuracy", info, info.accuracy, caption, which="{} hardest")
    words = f"{info.headline} {findings.classification_report.headline}"
    return Chapter("Class by class", (words, Beside(figure, _report_table(data))))


def trust(data: ReportData) -> Chapter:
    """Confidence, right against wrong and class by class."""
    confidence, by_class = data.findings.confidence, data.findings.true_class_probability
    left = content.drawn("confidence", confidence, confidence.headline, width=content.HALF, height=TRUST_HEIGHT)
    question, means = "true_class_probability", by_class.mean
    right = content.of_classes(question, by_class, means, by_class.headline, which="{} lowest", height=TRUST_HEIGHT)
    return Chapter("How sure it is", (Beside(left, right),))


def samples(data: ReportData) -> Chapter | None:
    """Images that the model got wrong, and right; None where none are to be shown."""
    if data.pixels is None:
        return None
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
            low, high = share_interval(accuracy, size)
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


def _report_table(data: ReportData) -> Table:
    info = data.findings.classification_report
    order = np.argsort(data.findings.per_class_accuracy.accuracy, kind="stable")[: content.MOST_ROWS].tolist()
    names = short_names([info.class_names[k] for k in order], content.NAME_LIMIT)
    rows = [
        (name, *(_score(scores[k]) for scores in (info.precision, info.recall, info.f1)), f"{info.support[k]:,}")
        for k, name in zip(order, names, strict=True)
    ]
    means = [_score(mean) for mean in info.means]
    judged = int((info.support > 0).sum())
    which = "all classes" if judged == len(info.support) else f"{judged:,} of {len(info.support):,} classes"
    rows.append((f"mean of {which}", *means, f"{info.support.sum():,}"))
    head = ("Class", "Precision", "Recall", "F1", "Images")
    return Table("Precision, recall and F1, in percent", head, tuple(rows), "lrrrr")


def _score(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f}"


def _tiles(data: ReportData, question: str, most: int) -> Tiles | None:
    info = getattr(data.findings, question)
    if isinstance(info, Misclassified) and len(info.tiles) > most:  # it stands in the order of classes: show them all
        info = replace(info, tiles=info.tiles.take(np.linspace(0, len(info.tiles) - 1, most).round().astype(int)))
    grid = tiles_grid(info)
    if grid is None:
        return None
    tiles = []
    for position in range(min(len(grid.ids), most)):
        amount = percent(info.tiles.confidence[position])
        second = f"{shorten(grid.captions[1].texts[position], CAPTION - 1 - len(amount))} {amount}".strip()
        picture = content.tile(data.image(grid.index[position]), alt="; ".join(grid.words[position]))
        first = shorten(grid.captions[0].texts[position], NAME)
        tiles.append(Tile(picture, first, second, bool(grid.outlined[position])))
    total = len(grid.ids) + grid.left_out
    note = f"The first {len(tiles)} of these {total:,}; the gallery shows more." if len(tiles) < total else ""
    return Tiles(f"{content.entry_of(question).title}. {info.headline}", tuple(tiles), COLUMNS, note=note)


MAP_NAME = 12  # characters of a class under a tile


def where_it_looks(data: ReportData) -> Chapter | None:
    """Images of the first group under their two maps, and the figures behind the verdict; None without heatmaps."""
    info = data.heatmaps
    if info is None or data.pixels is None:
        return None
    words = f"Heatmaps by {info.title}, taken from {info.layer or 'no layer'}. {info.headline}"
    blocks: list[Block] = [words]
    for group in info.groups[:1]:
        tiles: list[Tile | None] = []
        for maps, peaks, classes in (
            (group.first, group.first_peak, group.tiles.predicted),
            (group.second, group.second_peak, group.other),
        ):
            shown = zip(group.tiles.index, group.tiles.labels, maps, peaks, classes, strict=True)
            for index, label, heatmap, peak, said in islice(shown, COLUMNS):
                words = f"for {shorten(info.class_names[said], MAP_NAME)}" if peak else "empty map"
                picture = content.tile(overlaid(data.image(index), heatmap), alt=f"heatmap {words}")
                tiles.append(Tile(picture, words, "", bool(said != label)))
            tiles += [None] * (-len(tiles) % COLUMNS)
        caption = f"{group.title}: above, what speaks for the answer; below, what speaks for the other class"
        blocks.append(Tiles(caption, tuple(tiles), COLUMNS))
    rows = [
        (label, f"{share['mean']:.2f}", f"{share['low']:.2f} to {share['high']:.2f}", meaning)
        for label, share, meaning in measured(info)
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
    figure = content.drawn("levels", table, "Test accuracy, level by level")
    notes = (Points(table.notes),) if table.notes else ()
    return Chapter("The levels", (_table(table), figure, *notes))


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
        f"{level.images_per_second:,.0f}" if level.images_per_second else "–",
    )
