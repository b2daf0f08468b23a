"""The frame of every page, and the page of one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from lucidate.analysis.formatting import count
from lucidate.report.labels import escape
from lucidate.report.site.tables import MAX_ROWS, Table
from lucidate.report.sprites import Sheet

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%230e7a88'/%3E"
    "%3Crect x='9' y='9' width='4' height='4' fill='%23ff8a57'/%3E"
    "%3Cpath d='M3 3h4v4H3zM9 3h4v4H9zM3 9h4v4H3z' fill='%23fff'/%3E%3C/svg%3E"
)

_FRAME = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<meta name="description" content="$description">
<link rel="icon" href="$icon">
<link rel="stylesheet" href="${root}assets/gallery.css">
$styles<script src="${root}assets/gallery.js"></script>
$scripts</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header class="bar">
$home
<button class="theme" type="button" id="theme" aria-label="Switch between light and dark">
<svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true"><circle cx="10" cy="10" r="7.25" fill="none"
 stroke="currentColor" stroke-width="1.5"/><path d="M10 2.75a7.25 7.25 0 0 1 0 14.5z" fill="currentColor"/></svg>
</button>
</header>
<main id="main">
$body
</main>
</body>
</html>
""")

_DRAWN = Template("""<section class="figure figure--$kind" aria-label="$title">
<div class="tools" id="tools"></div>
<p class="swipe" id="swipe" hidden>Scroll sideways to see the rest <span aria-hidden="true">→</span></p>
<div class="scroller" id="scroller"><div class="plot" id="plot" role="img" aria-label="$headline"></div></div>
<noscript><p class="hint">The figure needs JavaScript; here is its picture.</p>
<img src="${root}plots/$name.png" width="$width" height="$height" alt="$headline"></noscript>
</section>
$hint
<p class="links">$downloads</p>
$tables""")

_FIGURE = Template("""<nav class="pager" aria-label="Figures">
$before
<span class="place">$number of $total</span>
$after
</nav>
<header class="head">
<p class="eyebrow">$group</p>
<h1>$title</h1>
<p class="lead">$headline</p>
</header>
$figure
<nav class="next" aria-label="Previous and next figure">
$previous_card
$next_card
</nav>
""")


@dataclass(frozen=True, eq=False)
class Card:
    """What the index and the neighbors of a page know of it.

    question: field of Findings that it answers. size: of its PNG, (width, height) in pixels. note: how to read the
    figure. left_out: images that the table has and the figure does not.
    """

    name: str
    title: str
    group: str
    headline: str
    kind: str
    question: str
    size: tuple[int, int]
    sheet: Sheet | None = None
    note: str = ""
    left_out: int = 0


def text(words: str) -> str:
    """Words as HTML, a number and its percent sign kept on one line."""
    return escape(words).replace(" %", "\N{NO-BREAK SPACE}%")


def frame(
    body: str,
    *,
    title: str,
    description: str,
    root: str,
    home: str,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
) -> str:
    """A whole document. body and home: HTML; title and description: text. root: relative path of the gallery.

    scripts, styles: what the page needs of assets/ beside what all pages need.
    """
    return _FRAME.substitute(
        title=escape(title),
        description=escape(description),
        icon=_ICON,
        root=root,
        scripts="".join(f'<script defer src="{root}assets/{script}"></script>\n' for script in scripts),
        styles="".join(f'<link rel="stylesheet" href="{root}assets/{style}">\n' for style in styles),
        home=home,
        body=body,
    )


def drawn(card: Card, *, tables: Sequence[Table], root: str) -> str:
    """A figure with its hint, downloads and tables, as HTML; the one figure of its page, which needs `data_of` it."""
    downloads = [download(f"{root}assets/csv/{table.name}.csv", f"{table.title} (CSV)") for table in tables]
    downloads.append(download(f"{root}plots/{card.name}.png", "Picture (PNG)"))
    return _DRAWN.substitute(
        kind=card.kind,
        title=escape(card.title),
        headline=text(card.headline),
        name=card.name,
        root=root,
        width=card.size[0] // 2,
        height=card.size[1] // 2,
        hint=_hint(card),
        downloads="".join(downloads),
        tables="".join(_details(table) for table in tables),
    )


def data_of(card: Card) -> list[str]:
    """Scripts of a page that draws this figure."""
    return ["plotly.min.js", f"data/{card.name}.js"]


def figure_page(
    cards: Sequence[Card], place: int, *, tables: Sequence[Table], about_title: str, whole: str = "gallery"
) -> str:
    """The page of one figure, with its neighbors and its numbers. whole: what the site is, for links to its start."""
    card = cards[place]
    previous = cards[place - 1] if place else None
    following = cards[place + 1] if place + 1 < len(cards) else None
    body = _FIGURE.substitute(
        before=_step(previous, "prev", "Previous figure", "←"),
        after=_step(following, "next", "Next figure", "→"),
        number=place + 1,
        total=len(cards),
        group=escape(card.group),
        title=escape(card.title),
        headline=text(card.headline),
        figure=drawn(card, tables=tables, root="../"),
        previous_card=_neighbor(previous, "Previous", whole),
        next_card=_neighbor(following, "Next", whole),
    )
    arrow = '<span aria-hidden="true">←</span>'
    return frame(
        body,
        title=f"{card.title} – {about_title}",
        description=card.headline,
        root="../",
        home=f'<a class="home" href="../index.html">{arrow} {escape(about_title)} {whole}</a>',
        scripts=data_of(card),
    )


def _hint(card: Card) -> str:
    words = card.note
    if card.sheet:
        more = f" {card.left_out:,} more {'is' if card.left_out == 1 else 'are'} in the table." if card.left_out else ""
        words = f"Click a tile to look closer; arrow keys walk on from there.{more} {_scaled(card.sheet)}"
    return f'<p class="hint">{text(words)}</p>' if words else ""


def _scaled(sheet: Sheet) -> str:
    """What was done to images to show them. What size a model saw is not known here: it may be another's."""
    height, width = sheet.source
    size = f"{width}×{height} pixels"
    if max(height, width) < sheet.tile:
        return f"Shown enlarged from {size}, the size they are stored in, and gently sharpened; for display only."
    if max(height, width) > sheet.tile:
        return f"Shown reduced from {size}, the size they are stored in; for display only."
    return f"Shown as they are stored, in {size}."


def download(url: str, label: str) -> str:
    """A link that saves a file."""
    return f'<a class="download" href="{url}" download>{escape(label)}</a>'


def _details(table: Table) -> str:
    rows = len(table.frame)
    if not rows:
        return ""
    shown = count(rows, "row") if rows <= MAX_ROWS else f"first {MAX_ROWS:,} of {rows:,} rows; the CSV has all"
    return (
        f'<details class="numbers"><summary>{escape(table.title)} as a table <span>{shown}</span></summary>'
        f'<div class="scroller" tabindex="0" role="region" aria-label="{escape(table.title)}">{table.html()}</div>'
        "</details>"
    )


def _step(card: Card | None, rel: str, label: str, arrow: str) -> str:
    if card is None:
        return f'<span class="step" aria-hidden="true">{arrow}</span>'
    return f'<a class="step" rel="{rel}" href="{card.name}.html" aria-label="{label}: {escape(card.title)}">{arrow}</a>'


def _neighbor(card: Card | None, label: str, whole: str) -> str:
    if card is None:
        return f'<a class="neighbor" href="../index.html"><span>{label}</span>Back to the {whole}</a>'
    return f'<a class="neighbor" href="{card.name}.html"><span>{label}</span>{escape(card.title)}</a>'
