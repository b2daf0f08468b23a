"""A run → its report: chapters composed in their order, typeset by Typst, written at once.

The template beside this file holds the look and nothing that differs between reports. Words and numbers reach it as a
JSON file, where a string is a string: what looks like markup in the name of a class is printed, never obeyed.
To add a chapter: a function of ReportData that gives it, or None where there is nothing to say, and its entry here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import typst
from matplotlib.font_manager import findfont, get_font

from lucidate.analysis.findings import analyze_run
from lucidate.analysis.heatmaps import Heatmaps
from lucidate.analysis.studies import LevelsTable
from lucidate.core.atomic import atomic_write
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack
from lucidate.report.pdf import ending, opening, results
from lucidate.report.pdf.content import Chapter, Facts, Picture, Report, ReportData
from lucidate.report.theme import LIGHT

TEMPLATE = "template.typ"
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")  # Matplotlib's, for letters that the compiler's own fonts lack
BREAK = "\N{ZERO WIDTH SPACE}"
_LONG = re.compile(r"\S{20}(?=\S{8})")  # a word of 28 characters may be wider than half a page


CHAPTERS: tuple[Callable[[ReportData], Chapter | None], ...] = (
    opening.question,
    opening.the_data,
    opening.method,
    opening.training,
    results.results,
    results.classes,
    results.trust,
    results.samples,
    results.where_it_looks,
    results.levels,
    ending.limits,
    ending.run_card,
)
STEPS = len(CHAPTERS) + 1  # of progress; the last one is typesetting


def compose(data: ReportData, *, reporter: Reporter) -> Report:
    """Everything that the report says."""
    chapters = []
    for done, chapter_of in enumerate(CHAPTERS):
        reporter.advance("report", done, STEPS, chapter_of.__name__.replace("_", " "))
        if chapter := chapter_of(data):
            chapters.append(chapter)
    reporter.advance("report", len(CHAPTERS), STEPS, "typesetting")
    title, answer = f"{data.model} on {data.card.data.dataset}", data.findings.summary.headline
    return Report(title, answer, opening.key_numbers(data), opening.in_short(data), tuple(chapters))


def report_of_run(
    run: RunDir,
    *,
    pack: Pack | None = None,
    split: str = "test",
    levels: LevelsTable | None = None,
    path: Path | None = None,
    images: bool = True,
    reporter: Reporter | None = None,
) -> Path:
    """Analyze one split of a run, write its report, and return the PDF's path.

    pack: the run's images, where they are open already. levels: of the challenge that the run is part of.
    path: default `report.pdf` in the run's folder, or `report-SPLIT.pdf` for another split than test. images: whether
    it shows any of the data set's, which may not be for everyone.
    Raises RunError where the split has not been predicted yet.
    """
    analysis = analyze_run(run, split=split, pack=pack, reporter=reporter)
    shown = run.heatmaps(split)
    heatmaps = Heatmaps.load(shown) if shown.exists() else None
    pixels = analysis.pack.images if images else None
    data = ReportData(RunCard.load(run.card), analysis.findings, split, pixels, levels, heatmaps)
    path = path or run.path / ("report.pdf" if split == "test" else f"report-{split}.pdf")
    return write_report(data, path, reporter=reporter)


def write_report(data: ReportData, path: Path, *, reporter: Reporter | None = None) -> Path:
    """Compose and typeset, and write the PDF at once: the same data gives the same bytes."""
    reporter = reporter or Silent()
    report = compose(data, reporter=reporter)
    try:
        moment = datetime.fromisoformat(data.card.created)
        made = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except ValueError:  # a card that does not say
        made = 0
    atomic_write(path, typeset(report, made=made))
    reporter.advance("report", STEPS, STEPS)
    return path


def typeset(report: Report, *, made: int) -> bytes:
    """The report as a PDF; the same report gives the same bytes. made: the date it bears, in Unix seconds."""
    pictures: dict[str, Picture] = {}
    text = json.dumps({**_plain(report, pictures), "palette": asdict(LIGHT)}, ensure_ascii=False)
    # Code points of all text; of a drawing those of its markup as well, which are plain ones.
    drawn = (picture.content.decode() for picture in pictures.values() if picture.suffix == "svg")
    letters = set(map(ord, "".join([text, *drawn]))) - {ord(BREAK), ord("\n")}
    known = set(get_font(findfont("DejaVu Sans")).get_charmap())
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, picture in pictures.items():
            (folder / file).write_bytes(picture.content)
        (folder / "content.json").write_text(text, encoding="utf-8")
        (folder / "fonts").mkdir()
        for font in FONTS:
            shutil.copy(Path(mpl.get_data_path()) / "fonts/ttf" / font, folder / "fonts")
        source = folder / TEMPLATE
        source.write_bytes((resources.files("lucidate.report.pdf") / TEMPLATE).read_bytes())
        return typst.compile(
            str(source),
            root=str(folder),
            font_paths=[str(folder / "fonts")],
            # The compiler's own fonts and these make the pages alike on every machine. Only letters that
            # neither has, such as Chinese ones, are worth a look at what is installed here.
            ignore_system_fonts=letters <= known,
            timestamp=made,
        )


def _plain(value: Any, pictures: dict[str, Picture]) -> Any:
    """Records as JSON writes them, blocks with their kind; pictures by the file that they become."""
    if isinstance(value, Picture):
        file = f"{len(pictures):03d}.{value.suffix}"
        pictures[file] = value
        return {"file": file, "alt": _clean(value.alt)}
    if isinstance(value, Facts):
        facts = [[_clean(label), _clean(words, breaks=label not in value.literal)] for label, words in value.facts]
        return {"kind": "facts", "facts": facts, "literal": sorted(value.literal)}
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: _plain(getattr(value, field.name), pictures) for field in fields(value)}
        return {"kind": type(value).__name__.lower(), **content}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item, pictures) for item in value]
    return _clean(value) if isinstance(value, str) else value


def _clean(words: str, *, breaks: bool = True) -> str:
    """Printable characters and newlines; with places to break in long words, but for what is to be copied."""
    printable = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in words)
    return _LONG.sub(lambda found: found[0] + BREAK, printable) if breaks else printable
