"""The chapters of the report, in their order.

To add one: a function of the material that gives a chapter, or None where there is nothing to say, and its place here.
"""

from __future__ import annotations

from collections.abc import Callable

from lucidate.core.progress import Reporter
from lucidate.report.pdf import ending, heatmaps, levels, opening, results
from lucidate.report.pdf.content import Chapter, Report
from lucidate.report.pdf.report_data import ReportData

CHAPTERS: tuple[Callable[[ReportData], Chapter | None], ...] = (
    opening.question,
    opening.data,
    opening.method,
    opening.training,
    results.results,
    results.classes,
    results.trust,
    results.samples,
    heatmaps.where_it_looks,
    levels.levels,
    ending.limits,
    ending.run_card,
)
STEPS = len(CHAPTERS) + 1  # of progress; the last one is typesetting


def compose(material: ReportData, *, reporter: Reporter) -> Report:
    """Everything that the report says."""
    card = material.card
    chapters = []
    for done, chapter_of in enumerate(CHAPTERS):
        reporter.advance("report", done, STEPS, chapter_of.__name__)
        if chapter := chapter_of(material):
            chapters.append(chapter)
    reporter.advance("report", len(CHAPTERS), STEPS, "typesetting")
    title = f"{material.model} on {card.data.dataset}"
    return Report(
        title=title,
        answer=material.findings.summary.headline,
        numbers=opening.key_numbers(material),
        short=opening.in_short(material),
        chapters=tuple(chapters),
        footer=title,
    )
