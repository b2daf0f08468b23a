"""The first page: the result, the surest mistakes, a card a figure, the run card."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from string import Template

from lucidate.analysis.findings import Findings
from lucidate.analysis.formatting import count, images, interval, percent
from lucidate.report.figures.catalog import FOLDED
from lucidate.report.labels import escape, short_names
from lucidate.report.site.pages import Card, frame, text

TEASERS = 8  # of the surest mistakes: one row on a wide screen
TEASER_NAME = 11  # characters of a class under one of them

_BODY = Template("""<header class="hero">
<div>
<p class="eyebrow">What the model gets right, and where it errs</p>
<h1>$title <span class="model">$model</span></h1>
<p class="lead">$headline</p>
</div>
<ul class="metrics">
$metrics
</ul>
</header>
$teaser
$groups
$run_card
""")

_PASSPORT = Template("""<section class="passport" aria-labelledby="passport">
<h2 id="passport">$title</h2>
<dl>
$facts
</dl>
$notes
</section>""")


def index_page(
    cards: Sequence[Card],
    findings: Findings,
    *,
    title: str,
    model: str,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> str:
    """The landing page. cards: in gallery order; neighbors of one group stand under one heading."""
    groups = "\n".join(_group(name, list(members)) for name, members in groupby(cards, key=lambda card: card.group))
    body = _BODY.substitute(
        title=escape(title),
        model=escape(model),
        headline=text(findings.summary.headline),
        metrics="\n".join(_metrics(findings, _by_question(cards))),
        teaser=_teaser(cards, findings),
        groups=groups,
        run_card=run_card("About this run", facts, notes),
    )
    home = '<span class="home">lucidate</span>'
    return frame(body, title=f"{title} · {model} – lucidate", description=findings.summary.headline, root="", home=home)


def _by_question(cards: Sequence[Card]) -> dict[str, Card]:
    """The card that answers each question; the one page of few mistakes answers for those folded into it."""
    found = {card.question: card for card in cards}
    return {**dict.fromkeys(FOLDED, found["misclassified"]), **found}


def run_card(title: str, facts: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    """Where it all comes from, at the foot of the first page, as HTML."""
    return _PASSPORT.substitute(
        title=escape(title),
        facts="\n".join(f"<div><dt>{escape(label)}</dt><dd>{text(value)}</dd></div>" for label, value in facts),
        notes="".join(f'<p class="note">{text(note)}</p>' for note in notes),
    )


def _metrics(findings: Findings, cards: dict[str, Card]) -> list[str]:
    """Four figures that answer the first four questions, each leading to its page. cards: by question."""
    summary, pairs = findings.summary, findings.top_confusions
    points, trust = round(100 * summary.overconfidence, 1), "as sure as it is right"
    gap = (f"{points:+.1f}" if points else "0.0").replace("-", "−")
    if points:
        trust = f"{'over' if points > 0 else 'under'}confident: {percent(summary.mean_confidence)} sure on average"
    confusion, often = "none", "no class is taken for another"
    if pairs.errors:
        row = int(pairs.counts.argmax())
        short = short_names(pairs.class_names)
        confusion = " → ".join(short[side[row]] for side in (pairs.true, pairs.predicted))
        often = f"{count(int(pairs.counts[row]))} of {count(int(pairs.totals[pairs.true[row]]), 'image')}"
    baseline = f"always the most frequent class: {percent(summary.majority_accuracy)}"
    spread = f"{interval(summary.low, summary.high)}; {baseline}"
    found = [
        ("Accuracy", percent(summary.accuracy), spread, "per_class_accuracy", ""),
        (
            "Errors",
            count(summary.errors),
            f"of {images(summary.images, summary.split)}",
            "misclassified",
            "",
        ),
        ("Confidence gap", f"{gap} points", trust, "confidence", ""),
        ("Most frequent confusion", confusion, often, "top_confusions", " metric--words"),
    ]
    return [
        f'<li><a class="metric{style}" href="docs/{cards[question].name}.html"><span>{label}</span>'
        f"<strong>{text(value)}</strong><span>{text(note)}</span></a></li>"
        for label, value, note, question, style in found
    ]


def _teaser(cards: Sequence[Card], findings: Findings) -> str:
    """The surest mistakes as tiles of their own page's sprite sheet; nothing where there is no mistake."""
    tiles = findings.most_confident_wrong.tiles
    card = _by_question(cards)["most_confident_wrong"]
    if card.sheet is None:
        return ""
    if card.question == "misclassified":  # few mistakes have one page and one sheet
        tiles = findings.misclassified.tiles
    url = card.sheet.url.removeprefix("../")
    shown, short = [], short_names(tiles.class_names, TEASER_NAME)
    for tile in range(min(len(tiles), TEASERS)):
        left, top = card.sheet.corner(tile)
        true, said = int(tiles.labels[tile]), int(tiles.predicted[tile])
        words = text(f"{tiles.class_names[true]}, taken for {tiles.class_names[said]}")
        shown.append(
            f'<li title="{words}"><span class="tile" role="img" aria-label="{words}" '
            f'style="background-image: url({url}); background-position: -{left}px -{top}px"></span>'
            f'<span class="true">{text(short[true])}</span><span class="said">→ {text(short[said])}</span>'
            f'<span class="sure">{text(percent(tiles.confidence[tile]))} sure</span></li>'
        )
    only = len(shown) == 1
    title, more = ("Its only mistake", "See its page") if only else ("Its surest mistakes", "See them all")
    if card.question == "misclassified" and not only:
        title = "Its mistakes"
    return (
        f'<section class="teaser" aria-labelledby="teaser"><div><h2 id="teaser">{title}</h2>'
        f'<a class="more" href="docs/{card.name}.html">{more} <span aria-hidden="true">→</span></a></div>'
        f"<ul>{''.join(shown)}</ul></section>"
    )


def _group(name: str, cards: Sequence[Card]) -> str:
    inner = "\n".join(_card(card) for card in cards)
    grid = f'<div class="cards cards--{len(cards)}">\n{inner}\n</div>'
    return f'<section class="group">\n<h2>{escape(name)}</h2>\n{grid}\n</section>'


def _card(card: Card) -> str:
    width, height = card.size[0] // 2, card.size[1] // 2
    wide = width > 1.6 * height and card.sheet is None
    fit = "whole" if wide or card.kind == "matrix" else "top"  # tall pictures show their upper part
    # Where a browser reads WebP it shows a grid's sprite: a seventh of the bytes, and no white ground on dark pages.
    url = card.sheet.url.removeprefix("../") if card.sheet else ""
    source = f'<source srcset="{url}" type="image/webp">' if url else ""
    return (
        f'<a class="card" href="docs/{card.name}.html"><picture class="preview preview--{card.kind} preview--{fit}">'
        f'{source}<img src="plots/{card.name}.png" width="{width}" height="{height}" loading="lazy" '
        f'alt="{escape(card.title)}: preview"></picture>'
        f"<h3>{escape(card.title)}</h3><p>{text(card.headline)}</p></a>"
    )
