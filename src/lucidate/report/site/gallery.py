"""The gallery: of a run, or of predictions from elsewhere; its pages, and what its first page says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucidate.analysis.findings import Analysis, Findings, analyze_run
from lucidate.analysis.formatting import count, duration, images, interval, percent, points
from lucidate.analysis.heatmaps import Heatmaps
from lucidate.core.progress import Reporter
from lucidate.core.records import Predictions, RunCard, slug
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack
from lucidate.report.figures.catalog import FEW, FOLDED, figures_of
from lucidate.report.site.heatmaps import write_heatmaps
from lucidate.report.site.pages import Card, Metric, Table, write_figure_page, write_page
from lucidate.report.site.site import check_pixels, new_site, write_figures, write_tables
from lucidate.report.theme import short_names

TEASERS = 8  # of the surest mistakes: one row on a wide screen
TEASER_NAME = 11  # characters of a class under one of them


@dataclass(frozen=True)
class About:
    """What the first page says of the run, in words meant for people.

    title: the data set; model: the model's name. facts: (label, value) pairs. notes: caveats, shown plainly.
    """

    title: str
    model: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def gallery_of_run(run: RunDir, *, pack: Pack | None = None, reporter: Reporter | None = None) -> Path:
    """Analyze a run's test split, write its `analysis/` and `gallery/`, and return the landing page.

    pack: the run's images, where they are open already.
    """
    analysis = analyze_run(run, pack=pack, reporter=reporter)
    analysis.findings.save(run.analysis())
    return gallery_of_analysis(analysis, folder=run.gallery(), run=run, reporter=reporter)


def gallery_of_analysis(
    analysis: Analysis, *, folder: Path, run: RunDir | None = None, reporter: Reporter | None = None
) -> Path:
    """Write the gallery of an analysis into a folder. run: where it came from one; its heatmaps are shown too."""
    stored = run.heatmaps(analysis.predictions.split) if run else None
    return build_gallery(
        folder,
        analysis.predictions,
        analysis.findings,
        analysis.pack.images,
        about=describe(analysis, RunCard.load(run.card) if run else None),
        heatmaps=Heatmaps.load(stored) if stored and stored.exists() else None,
        reporter=reporter,
    )


def build_gallery(
    folder: Path,
    predictions: Predictions,
    findings: Findings,
    pixels: NDArray[np.uint8],
    *,
    about: About,
    heatmaps: Heatmaps | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Write the gallery to `folder`, replacing the one that stood there, and return its index.html.

    pixels: (N, H, W, 3) uint8 packed store, may be memory-mapped; row = index of predictions and findings.
    The same arguments give the same bytes. The folder is complete or not there: it is written aside and swapped in.
    Raises PredictionsError where pixels are not the images that the predictions speak of.
    """
    check_pixels(pixels, predictions.index)
    asked = figures_of(findings)
    with new_site(folder) as site:
        cards = write_figures(site, asked, pixels, dataset=predictions.dataset, task="gallery", reporter=reporter)
        for position, (card, (entry, info)) in enumerate(zip(cards, asked, strict=True)):
            tables = [Table(card.title, card.name, info.frame())]
            if entry.question == "per_class_accuracy":
                report = findings.classification_report
                tables.append(Table("Classification report", f"{card.name}_report", report.frame()))
            if entry.question == "misclassified" and 0 < findings.summary.errors <= FEW:
                pairs = findings.top_confusions.frame()
                tables.append(Table("Confusions", f"{slug(predictions.dataset)}_top_confusions", pairs))
            write_tables(site, tables)
            write_figure_page(site, cards, position, tables=tables, title=about.title)
        if heatmaps:
            cards.append(write_heatmaps(site, heatmaps, pixels, title=about.title))
        _write_index(site, cards, findings, about=about)
    return folder / "index.html"


def describe(analysis: Analysis, card: RunCard | None = None) -> About:
    """What the first page says of a run by its card, or of predictions that came without one."""
    pack, predictions = analysis.pack, analysis.predictions
    if card is None:
        facts = [
            ("Data", f"{pack.source}, {len(pack):,} images of {pack.image_size} pixels"),
            ("Predictions", f"{images(len(predictions), predictions.split)}, predicted elsewhere"),
        ]
        return About(pack.dataset, predictions.model, tuple(facts), _notes(analysis))
    sizes = ", ".join(f"{size:,} {name}" for name, size in card.split.sizes.items())
    versions = ", ".join(f"{name} {card.versions.get(name, '?')}" for name in ("lucidate", "torch", "python"))
    origin, hardware, results = card.origin, card.hardware, card.results
    accuracy = results.val_accuracy
    facts = [
        ("Data", f"{card.data.source}, {card.data.images:,} images of {card.data.image_size} pixels"),
        ("Split", f"{card.split.scheme}{f', seed {card.seed}' if origin else ''}: {sizes}"),
        ("Model", f"{card.model.name}, {card.model.parameters:,} parameters"),
    ]
    if origin:  # nobody here has seen its training
        facts.append(("Training", "elsewhere"))
        if accuracy is not None:
            facts.append(("Validation accuracy", percent(accuracy)))
        file = f"{origin.file}, SHA-256 {origin.sha256[:12]}…"
        facts += [("File", file), ("Versions", versions), ("Taken in", card.created)]
        return About(pack.dataset, card.model.name, tuple(facts), _notes(analysis, card))
    epochs = "its members, " if results.epochs is None else f"{count(results.epochs, 'epoch')} in "
    facts += [
        ("Training", f"{epochs}{duration(results.train_seconds)}"),
        ("Validation accuracy", percent(accuracy or 0.0)),
        ("Seed", str(card.seed)),
        ("Hardware", hardware.get("accelerator") or f"{hardware.get('processor')}, {card.threads} threads"),
        ("Versions", versions),
        ("Commit", card.commit[:12] if card.commit else "not from a checkout"),
        ("Command", card.command or "called from Python"),
        ("Made", card.created),
    ]
    return About(pack.dataset, card.model.name, tuple(facts), _notes(analysis, card))


def _notes(analysis: Analysis, card: RunCard | None = None) -> tuple[str, ...]:
    notes = list(card.notes) if card and card.origin else []
    if card is None and analysis.findings.accuracy_curve is None:
        notes.append("No training history came with these predictions; --history FILE adds the curves.")
    if aside := len(analysis.pack.set_aside):
        notes.append(f"{count(aside, 'file')} of the source {'was' if aside == 1 else 'were'} set aside.")
    return tuple(notes)


def _write_index(site: Path, cards: Sequence[Card], findings: Findings, *, about: About) -> None:
    """The landing page. cards: in gallery order; neighbors of one group stand under one heading."""
    found = {card.question: card for card in cards}
    by_question = {**dict.fromkeys(FOLDED, found["misclassified"]), **found}  # one page of few mistakes answers these
    write_page(
        site / "index.html",
        "index.html",
        title=f"{about.title} · {about.model} – lucidate",
        description=findings.summary.headline,
        content={
            "about": about,
            "metrics": _metrics(findings, by_question),
            "teaser": _teaser(findings, by_question["most_confident_wrong"]),
            "groups": [(name, list(members)) for name, members in groupby(cards, key=lambda card: card.group)],
        },
    )


def _metrics(findings: Findings, cards: dict[str, Card]) -> list[Metric]:
    """Four figures that answer the first four questions, each leading to its page. cards: by question."""
    summary, pairs = findings.summary, findings.top_confusions
    gap, trust = round(100 * summary.overconfidence, 1), "as sure as it is right"
    if gap:
        trust = f"{'over' if gap > 0 else 'under'}confident: {percent(summary.mean_confidence)} sure on average"
    confusion, often = "none", "no class is taken for another"
    if pairs.errors:
        row = int(pairs.counts.argmax())
        short = short_names(pairs.class_names)
        confusion = " → ".join(short[side[row]] for side in (pairs.true, pairs.predicted))
        often = f"{count(int(pairs.counts[row]))} of {count(int(pairs.totals[pairs.true[row]]), 'image')}"
    baseline = f"always the most frequent class: {percent(summary.majority_accuracy)}"
    spread = f"{interval(summary.low, summary.high)}; {baseline}"
    errors = count(summary.errors), f"of {images(summary.images, summary.split)}"
    found = (
        ("Accuracy", percent(summary.accuracy), spread, "per_class_accuracy"),
        ("Errors", *errors, "misclassified"),
        ("Confidence gap", points(summary.overconfidence), trust, "confidence"),
        ("Most frequent confusion", confusion, often, "top_confusions"),
    )
    return [
        Metric(label, value, note, f"docs/{cards[question].name}.html", long=question == "top_confusions")
        for label, value, note, question in found
    ]


def _teaser(findings: Findings, card: Card) -> dict[str, Any] | None:
    """The surest mistakes as tiles of the sprite of their own page, `card`; None where there is no mistake."""
    if card.sprite is None:
        return None
    all_shown = card.question == "misclassified"  # few mistakes have one page and one sprite
    tiles = findings.misclassified.tiles if all_shown else findings.most_confident_wrong.tiles
    short, names = short_names(tiles.class_names, TEASER_NAME), tiles.class_names
    shown = []
    for tile in range(min(len(tiles), TEASERS)):
        true, said, sure = tiles.labels[tile], tiles.predicted[tile], percent(tiles.confidence[tile])
        label = f"{names[true]}, taken for {names[said]}"
        shown.append({"label": label, "true": short[true], "said": short[said], "sure": sure})
    title = "Its only mistake" if len(shown) == 1 else "Its mistakes" if all_shown else "Its surest mistakes"
    more = "See its page" if len(shown) == 1 else "See them all"
    return {"title": title, "more": more, "page": card.name, "sprite": card.sprite, "tiles": shown}
