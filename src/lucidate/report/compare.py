"""The page of a comparison: a static site like the gallery, of two models on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from lucidate.analysis.comparison import Comparison, Side
from lucidate.analysis.flips import Flips
from lucidate.analysis.formatting import count, images, interval, p_value, percent, points, points_interval
from lucidate.core.errors import PredictionsError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard
from lucidate.data.pack import Pack
from lucidate.report.figures import comparison
from lucidate.report.figures.catalog import FigureEntry, Info
from lucidate.report.labels import escape, short_names
from lucidate.report.site import pages, site
from lucidate.report.site.index import run_card
from lucidate.report.site.tables import Table

TEASERS = 16  # images of each kind on the first page: two rows on a wide screen
TEASER_NAME = 12  # characters of a class under one of them, beside the confidence

_BODY = Template("""<header class="hero">
<div>
<p class="eyebrow">Two models, the same images</p>
<h1>$first <span class="model">→</span> $second</h1>
<p class="lead">$headline</p>
</div>
<ul class="metrics">
$metrics
</ul>
</header>
<section class="part" id="classes" aria-labelledby="classes-title">
<h2 id="classes-title">$classes_title</h2>
<p class="lead">$classes_headline</p>
$figure
</section>
<section class="part" id="agreement" aria-labelledby="agreement-title">
<h2 id="agreement-title">Where they agree</h2>
<p class="lead">$agreement</p>
$fourfold
<p class="links">$download</p>
</section>
$fixed
$broken
$run_card
""")

CHANGE = FigureEntry(
    "per_class_change",
    comparison.TITLE,
    "Classes",
    "classes",
    draw_plotly=comparison.draw_plotly,
    draw_matplotlib=comparison.draw_matplotlib,
    note=comparison.note,
)
FIXED = FigureEntry(
    "fixed", "Fixed: A was wrong, B is right", "Images that flipped", "fixed", "grid", board=comparison.flips_board
)
BROKEN = FigureEntry(
    "broken", "Broken: A was right, B is wrong", "Images that flipped", "broken", "grid", board=comparison.flips_board
)


def describe(card: RunCard | None) -> str:
    """What a run card says of its model, in a line; None: predictions that came without a run."""
    if card is None:
        return "a table of predictions"
    if card.origin:
        return f"{card.model.name}, {card.model.parameters:,} parameters, from elsewhere"
    epochs = f", {count(card.results.epochs, 'epoch')}" if card.results.epochs else ""
    return f"{card.model.name}, {card.model.parameters:,} parameters{epochs}, seed {card.seed}"


def build_comparison(
    folder: Path,
    compared: Comparison,
    pack: Pack,
    *,
    about: tuple[str, str],
    reporter: Reporter = Silent(),  # noqa: B008 (stateless)
) -> Path:
    """Write the comparison's site to `folder`, replacing the one that stood there, and return its index.html.

    pack: holds the images, found by their ids. about: each of the two models in a line. The same arguments give the
    same bytes, and the folder is complete or not there.
    Raises PredictionsError where the pack lacks an image, or knows it by another class.
    """
    fixed, broken = (_located(flips, pack) for flips in (compared.fixed, compared.broken))
    asked: list[tuple[FigureEntry, Info]] = [(CHANGE, compared.classes), (FIXED, fixed), (BROKEN, broken)]
    title = " vs. ".join(compared.names)
    with site.new_site(folder) as new:
        styles = (resources.files("lucidate.report.site") / "assets/compare.css").read_text(encoding="utf-8")
        site.write_text(new / "assets/compare.css", styles)
        cards = site.write_figures(
            new, asked, pack.images, dataset=compared.dataset, task="comparison", reporter=reporter
        )
        tables = [Table(card.title, card.name, info.frame()) for card, (_, info) in zip(cards, asked, strict=True)]
        site.write_tables(new, [*tables, Table("Comparison", "comparison", compared.frame())])
        for place, card in enumerate(cards[1:]):  # the first stands on the first page
            page = pages.figure_page(
                cards[1:], place, tables=[tables[place + 1]], about_title=title, whole="comparison"
            )
            site.write_text(new / "docs" / f"{card.name}.html", page)
        index = _index(compared, cards, tables[0], flips=(fixed, broken), about=about, title=title)
        site.write_text(new / "index.html", index)
    reporter.advance("comparison", len(asked), len(asked))
    return folder / "index.html"


def _located(flips: Flips, pack: Pack) -> Flips:
    """The same flips, the rows of their images looked up in this store by id."""
    if not len(flips):
        return flips
    tiles = flips.first
    order = np.argsort(pack.ids)
    place = np.minimum(np.searchsorted(pack.ids, tiles.ids, sorter=order), len(pack) - 1)
    rows = order[place]
    missing = np.flatnonzero(pack.ids[rows] != tiles.ids)
    if missing.size:
        raise PredictionsError(
            f"images: expected those that the predictions speak of, received {pack.source} without "
            f"{str(tiles.ids[missing[0]])!r} ({missing.size:,} missing)"
        )
    theirs = np.array(pack.class_names)[pack.labels[rows]]
    ours = np.array(tiles.class_names)[tiles.labels]
    other = np.flatnonzero(theirs != ours)
    if other.size:
        image, true, given = (str(values[other[0]]) for values in (tiles.ids, ours, theirs))
        raise PredictionsError(
            f"images: expected {image!r} of {pack.source} to be {true!r}, as in the predictions, received {given!r} "
            f"({other.size:,} differ); are these the images that were predicted?"
        )
    return replace(flips, first=replace(tiles, index=rows), second=replace(flips.second, index=rows))


def _index(
    compared: Comparison,
    cards: Sequence[pages.Card],
    table: Table,
    *,
    flips: tuple[Flips, Flips],
    about: tuple[str, str],
    title: str,
) -> str:
    """The first page. cards: of the chart, of the fixed and of the broken. table: of the chart."""
    a, b = compared.names
    both = f"{count(compared.both_right)} are right in both and {count(compared.both_wrong)} wrong in both"
    body = _BODY.substitute(
        first=escape(a),
        second=escape(b),
        headline=pages.text(compared.headline),
        metrics="\n".join(_metrics(compared)),
        classes_title=escape(cards[0].title),
        classes_headline=pages.text(cards[0].headline),
        figure=pages.drawn(cards[0], tables=[table], root=""),
        agreement=pages.text(
            f"Of {images(compared.images, compared.split)} {both}; of these, {compared.changed_wrong:,} are given two "
            "different wrong answers."
        ),
        fourfold=_fourfold(compared),
        download=pages.download("assets/csv/comparison.csv", "Comparison (CSV)"),
        fixed=_tiles(cards[1], flips[0]),
        broken=_tiles(cards[2], flips[1]),
        run_card=run_card("About this comparison", _facts(compared, about), _notes(compared)),
    )
    return pages.frame(
        body,
        title=f"{title} – lucidate",
        description=compared.headline,
        root="",
        home='<span class="home">lucidate</span>',
        scripts=pages.data_of(cards[0]),
        styles=["compare.css"],
    )


def _metrics(compared: Comparison) -> list[str]:
    """Both accuracies, their difference and the flips, each leading to its place on the page."""

    def accuracy(letter: str, side: Side) -> tuple[str, ...]:
        label = f'<span class="letter">{letter}</span>{escape(side.name)}'
        return label, percent(side.accuracy), interval(side.low, side.high), "#agreement"

    difference = (points(compared.difference), points_interval(compared.low, compared.high))
    flipped = f"{len(compared.fixed):,} fixed, {len(compared.broken):,} broken"
    found = [
        accuracy("A", compared.first),
        accuracy("B", compared.second),
        ("B less A", *difference, "#classes"),
        ("Images that flipped", flipped, f"McNemar {p_value(compared.mcnemar_p)}", "#fixed"),
    ]
    return [
        f'<li><a class="metric{" metric--words" if address == "#fixed" else ""}" href="{address}"><span>{label}</span>'
        f"<strong>{pages.text(value)}</strong><span>{pages.text(note)}</span></a></li>"
        for label, value, note, address in found
    ]


def _fourfold(compared: Comparison) -> str:
    """The contingency table."""
    letters = {"A": compared.first, "B": compared.second}
    heads = {
        (
            letter,
            state,
        ): f'<span class="letter">{letter}</span><span class="name">{pages.text(side.name)}</span> {state}'
        for letter, side in letters.items()
        for state in ("right", "wrong")
    }

    def cell(number: int, words: str, kind: str = "same") -> str:
        return f'<td class="{kind}"><strong>{number:,}</strong><span>{pages.text(words)}</span></td>'

    def total(number: int) -> str:
        return f'<td class="sum">{number:,}</td>'

    first, second, number = compared.first, compared.second, compared.images
    differently = f"both wrong, {compared.changed_wrong:,} differently"
    lines = [
        f'<td class="empty"></td><th scope="col">{heads["B", "right"]}</th><th scope="col">{heads["B", "wrong"]}</th>'
        '<th scope="col" class="sum">All</th>',
        f'<th scope="row">{heads["A", "right"]}</th>{cell(compared.both_right, "both right")}'
        f"{cell(len(compared.broken), 'broken: only A is right', 'broken')}{total(first.right)}",
        f'<th scope="row">{heads["A", "wrong"]}</th>{cell(len(compared.fixed), "fixed: only B is right", "fixed")}'
        f"{cell(compared.both_wrong, differently)}{total(number - first.right)}",
        f'<th scope="row" class="sum">All</th>{total(second.right)}{total(number - second.right)}{total(number)}',
    ]
    head, *rest = (f"<tr>{line}</tr>" for line in lines)
    return f'<table class="fourfold"><thead>{head}</thead><tbody>{"".join(rest)}</tbody></table>'


def _tiles(card: pages.Card, flips: Flips) -> str:
    """The first of the flipped images, cut from their own page's sprite sheet."""
    shown, names = [], short_names(flips.first.class_names, TEASER_NAME)
    for tile in range(min(len(flips), TEASERS) if card.sheet else 0):
        left, top = card.sheet.corner(tile) if card.sheet else (0, 0)
        true = flips.first.class_names[flips.first.labels[tile]]
        short = names[flips.first.labels[tile]]
        lines, words = "", []
        for letter, tiles in (("A", flips.first), ("B", flips.second)):
            said = tiles.class_names[tiles.predicted[tile]]
            cut = pages.text(names[tiles.predicted[tile]])
            kind = "right" if tiles.predicted[tile] == tiles.labels[tile] else "wrong"
            sure = pages.text(percent(tiles.confidence[tile]))
            lines += f'<span class="answer {kind}"><span>{letter} {cut}</span> <span>{sure}</span></span>'
            words.append(f"{said} by {letter}")
        label = pages.text(f"{true}, taken for {' and for '.join(words)}")
        url = card.sheet.url.removeprefix("../") if card.sheet else ""
        shown.append(
            f'<li title="{label}"><span class="tile" role="img" aria-label="{label}" '
            f'style="background-image: url({url}); background-position: -{left}px -{top}px"></span>'
            f'<span class="true">{pages.text(short)}</span>{lines}</li>'
        )
    more = f"See all {len(flips):,}" if len(flips) > TEASERS else "Look closer"
    link = f'<a class="more" href="docs/{card.name}.html">{more} <span aria-hidden="true">→</span></a>' if shown else ""
    grid = f'<ul class="flips">{"".join(shown)}</ul>' if shown else ""
    return (
        f'<section class="part" id="{card.name}" aria-labelledby="{card.name}-title"><div class="top">'
        f'<h2 id="{card.name}-title">{escape(card.title)}</h2>{link}</div>'
        f'<p class="lead">{pages.text(card.headline)}</p>{grid}</section>'
    )


def _facts(compared: Comparison, about: tuple[str, str]) -> list[tuple[str, str]]:
    return [
        (f"A: {compared.first.name}", about[0]),
        (f"B: {compared.second.name}", about[1]),
        ("Images", f"{images(compared.images, compared.split)} of {compared.dataset}, joined by their ids"),
        ("Order of the images", "largest change of the true class's probability first"),
        ("Intervals", "95 %: Wilson's for an accuracy, Bonett and Price's for a difference on the same images"),
        ("Test", "McNemar's, exact and two-sided"),
    ]


def _notes(compared: Comparison) -> list[str]:
    return [
        f"{count(number, 'image')} that only {name} answered {'is' if number == 1 else 'are'} left out."
        for name, number in zip(compared.names, compared.left_out, strict=True)
        if number
    ]
