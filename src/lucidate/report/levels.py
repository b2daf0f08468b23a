"""The page of a challenge: its levels in one figure and one table, each leading to its own gallery."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from lucidate.analysis.formatting import images, interval, p_value, percent, points
from lucidate.analysis.levels import Level, LevelsTable
from lucidate.core.progress import Silent
from lucidate.report.figures import levels
from lucidate.report.figures.catalog import FigureEntry
from lucidate.report.labels import escape
from lucidate.report.site import pages, site
from lucidate.report.site.tables import Table

_BODY = Template("""<header class="hero">
<div>
<p class="eyebrow">$title, level by level</p>
<h1>What each level bought</h1>
<p class="lead">$headline</p>
</div>
</header>
<section class="part" aria-labelledby="levels-title">
<h2 id="levels-title">$figure_title</h2>
$figure
</section>
<section class="part" aria-labelledby="table-title">
<h2 id="table-title">The levels</h2>
<div class="scroller" tabindex="0" role="region" aria-label="The levels">
<table class="levels"><thead><tr>$heads</tr></thead><tbody>
$rows
</tbody></table></div>
$notes
</section>
""")

FIGURE = FigureEntry(
    "levels",
    levels.TITLE,
    "Levels",
    "levels",
    draw_plotly=levels.draw_plotly,
    draw_matplotlib=levels.draw_matplotlib,
    note=getattr(levels, "note", None),
)
HEADS = ("Level", "Model", "Parameters", "Validation", "Test", "Change", "Training", "Images/s")


def levels_site(folder: Path, table: LevelsTable, *, title: str) -> Path:
    """Write the page to `folder`, replacing what stood there, and return its index.html.

    Each level's row leads to the gallery of its run, `../RUN/gallery/`, where that is written. title: the data set.
    """
    with site.new_site(folder) as new:
        styles = (resources.files("lucidate.report.site") / "assets/compare.css").read_text(encoding="utf-8")
        site.write_text(new / "assets/compare.css", styles)
        nothing = np.zeros((0, 1, 1, 3), np.uint8)  # a chart shows no images
        (card,) = site.write_figures(new, [(FIGURE, table)], nothing, dataset=title, task="levels", reporter=Silent())
        numbers = Table("Levels", "levels", table.frame())
        site.write_tables(new, [numbers])
        body = _BODY.substitute(
            title=escape(title),
            headline=pages.text(table.headline),
            figure_title=escape(card.title),
            figure=pages.drawn(card, tables=[numbers], root=""),
            heads="".join(f'<th scope="col">{head}</th>' for head in HEADS),
            rows="\n".join(
                _row(row, folder, member=place > 0)
                for level in table.levels
                for place, row in enumerate((level, *level.members))
            ),
            notes="".join(f'<p class="note">{pages.text(note)}</p>' for note in table.notes),
        )
        page = pages.frame(
            body,
            title=f"{title}: levels – lucidate",
            description=table.headline,
            root="",
            home='<span class="home">lucidate</span>',
            scripts=pages.data_of(card),
            styles=["compare.css"],
        )
        site.write_text(new / "index.html", page)
    return folder / "index.html"


def _row(level: Level, folder: Path, *, member: bool) -> str:
    name = f"member: {level.model}" if member else f"{level.level} · {level.title}"
    if (folder.parent / level.run / "gallery" / "index.html").exists():
        label = f'<a href="../{escape(level.run)}/gallery/index.html">{escape(name)}</a>'
    else:
        label = escape(name)
    change = "" if level.change is None or level.p is None else f"{points(level.change)}<span>{p_value(level.p)}</span>"
    cells = (
        f"{escape(level.model)}<span>{escape(level.origin)}</span>",
        f"{level.parameters:,}",
        _accuracy(level.val_accuracy, level.val_low, level.val_high, level.val_images, "validation"),
        _accuracy(level.test_accuracy, level.test_low, level.test_high, level.test_images, "test"),
        change,
        f"{level.seconds / 60:.1f} min" if level.seconds >= 60 else f"{level.seconds:.0f} s",
        f"{level.images_per_second:,.0f}" if level.images_per_second else "",
    )
    told = "".join(f'<td data-column="{head}">{cell}</td>' for head, cell in zip(HEADS[1:], cells, strict=True))
    kind = ' class="member"' if member else ""
    return f'<tr{kind}><th scope="row">{label}</th>{told}</tr>'


def _accuracy(share: float, low: float, high: float, number: int, split: str) -> str:
    title = escape(images(number, split))
    return (
        f'<strong title="{title}">{pages.text(percent(share))}</strong><span>{pages.text(interval(low, high))}</span>'
    )
