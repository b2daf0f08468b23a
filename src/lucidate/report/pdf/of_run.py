"""The report of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lucidate.analysis.findings import analyze_run
from lucidate.analysis.heatmaps import Heatmaps
from lucidate.analysis.levels import LevelsTable
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir, atomic_write
from lucidate.data.pack import Pack
from lucidate.report.pdf.chapters import STEPS, compose
from lucidate.report.pdf.document import typeset
from lucidate.report.pdf.report_data import ReportData


def report_of_run(
    run: RunDir,
    *,
    pack: Pack | None = None,
    split: str = "test",
    levels: LevelsTable | None = None,
    path: Path | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Analyze one split of a run, write its report, and return the PDF's path.

    pack: the run's images, where they are open already. levels: of the challenge that the run is part of.
    path: default `report.pdf` in the run's folder, or `report-SPLIT.pdf` for another split than test.
    Raises RunError where the split has not been predicted yet.
    """
    reporter = reporter or Silent()
    analysis = analyze_run(run, split=split, pack=pack, reporter=reporter)
    card = RunCard.load(run.card)
    shown = run.heatmaps(split)
    heatmaps = Heatmaps.load(shown) if shown.exists() else None
    material = ReportData(card, analysis.findings, split, analysis.pack.images, levels, heatmaps)
    path = path or run.path / ("report.pdf" if split == "test" else f"report-{split}.pdf")
    return write_report(material, path, reporter=reporter)


def write_report(material: ReportData, path: Path, *, reporter: Reporter | None = None) -> Path:
    """Compose and typeset, and write the PDF at once: the same material gives the same bytes."""
    reporter = reporter or Silent()
    report = compose(material, reporter=reporter)
    atomic_write(path, typeset(report, made=_seconds(material.card.created)))
    reporter.advance("report", STEPS, STEPS)
    return path


def _seconds(created: str) -> int:
    """A passport's date in Unix seconds; 0 where it does not say."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
