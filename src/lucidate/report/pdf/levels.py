"""The chapter on the levels of a challenge: what each adds, and what it brought."""

from __future__ import annotations

from lucidate.analysis.formatting import p_value, percent, points
from lucidate.analysis.levels import Level, LevelsTable
from lucidate.report.figures import levels as drawing
from lucidate.report.pdf import figures
from lucidate.report.pdf.content import Block, Chapter, Figure, Points, Table
from lucidate.report.pdf.report_data import ReportData, span

HEAD = ("Level", "What it adds", "Parameters", "Validation", "Test", "Change", "Minutes", "Images/s")


def levels(material: ReportData) -> Chapter | None:
    """The table of the levels and their test accuracies; None for a run that is not one of several."""
    table = material.levels
    if table is None:
        return None
    picture = figures.vector(
        drawing.draw_matplotlib,
        table,
        width=figures.FULL,
        alt="test accuracy of each level with its 95 % interval",
    )
    blocks: list[Block] = [_table(table), Figure("Test accuracy, level by level", picture, drawing.note(table))]
    if table.notes:
        blocks.append(Points(table.notes))
    return Chapter("The levels", tuple(blocks))


def _table(table: LevelsTable) -> Table:
    rows, indented = [], set()
    for level in table.levels:
        rows.append(_row(level, str(level.level)))
        for place, member in enumerate(level.members, 1):
            indented.add(len(rows))
            rows.append(_row(member, f"{level.level}.{place}"))
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
