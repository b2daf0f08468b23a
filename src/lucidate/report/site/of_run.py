"""The gallery of a run, and what the landing page says of where it comes from."""

from __future__ import annotations

from pathlib import Path

from lucidate.analysis.formatting import count, images, percent
from lucidate.analysis.heatmaps import Heatmaps
from lucidate.analysis.of_run import Analysis, analyze_run
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack
from lucidate.report.site.heatmaps import write_heatmaps
from lucidate.report.site.pages import Card
from lucidate.report.site.site import About, build_gallery


def gallery_of_run(run: RunDir, *, pack: Pack | None = None, reporter: Reporter | None = None) -> Path:
    """Analyze a run's test split, write its `analysis/` and `gallery/`, and return the landing page.

    pack: the run's images, where they are open already.
    """
    analysis = analyze_run(run, pack=pack, reporter=reporter)
    analysis.findings.save(run.analysis())
    return gallery_of_analysis(run, analysis, folder=run.gallery(), reporter=reporter)


def gallery_of_analysis(run: RunDir, analysis: Analysis, *, folder: Path, reporter: Reporter | None = None) -> Path:
    """Write the gallery of a run's analysis into a folder, with its heatmaps where there are any."""
    about = describe_run(run, analysis)
    shown = run.heatmaps(analysis.predictions.split)
    heatmaps = Heatmaps.load(shown) if shown.exists() else None

    def more(site: Path) -> Card:
        assert heatmaps is not None  # else it is not called
        return write_heatmaps(site, heatmaps, analysis.pack.images, title=about.title)

    return build_gallery(
        folder,
        analysis.predictions,
        analysis.findings,
        analysis.pack.images,
        about=about,
        more=more if heatmaps else None,
        reporter=reporter or Silent(),
    )


def gallery_of_external(analysis: Analysis, *, folder: Path, reporter: Reporter | None = None) -> Path:
    """Write the gallery of predictions that came from elsewhere into a folder."""
    return build_gallery(
        folder,
        analysis.predictions,
        analysis.findings,
        analysis.pack.images,
        about=describe_external(analysis),
        reporter=reporter or Silent(),
    )


def describe_run(run: RunDir, analysis: Analysis) -> About:
    """What a run card says, for people."""
    card = RunCard.load(run.card)
    sizes = ", ".join(f"{count:,} {name}" for name, count in card.split.sizes.items())
    if card.origin:
        return About(analysis.pack.dataset, card.model.name, _origin_facts(card, sizes), _notes(analysis, card))
    hardware, results = card.hardware, card.results
    where = hardware.get("accelerator") or f"{hardware.get('processor')}, {card.threads} threads"
    facts = [
        ("Data", f"{card.data.source}, {card.data.images:,} images of {card.data.image_size} pixels"),
        ("Split", f"{card.split.scheme}: {sizes}"),
        ("Model", f"{card.model.name}, {card.model.parameters:,} parameters"),
        ("Training", f"{_epochs(results.epochs)}{_duration(results.train_seconds)}"),
        ("Validation accuracy", percent(results.val_accuracy or 0.0)),
        ("Seed", str(card.seed)),
        ("Hardware", where),
        ("Versions", ", ".join(f"{name} {card.versions.get(name, '?')}" for name in ("lucidate", "torch", "python"))),
        ("Commit", card.commit[:12] if card.commit else "not from a checkout"),
        ("Command", card.command or "called from Python"),
        ("Made", card.created),
    ]
    return About(analysis.pack.dataset, card.model.name, tuple(facts), _notes(analysis, card))


def _origin_facts(card: RunCard, sizes: str) -> tuple[tuple[str, str], ...]:
    """Of a model from elsewhere, whose training nobody here has seen."""
    assert card.origin is not None
    known = card.results.val_accuracy
    return (
        ("Data", f"{card.data.source}, {card.data.images:,} images of {card.data.image_size} pixels"),
        ("Split", f"{card.split.scheme}, seed {card.seed}: {sizes}"),
        ("Model", f"{card.model.name}, {card.model.parameters:,} parameters"),
        ("Training", "elsewhere"),
        *((("Validation accuracy", percent(known)),) if known is not None else ()),
        ("File", f"{card.origin.file}, SHA-256 {card.origin.sha256[:12]}…"),
        ("Versions", ", ".join(f"{name} {card.versions.get(name, '?')}" for name in ("lucidate", "torch", "python"))),
        ("Taken in", card.created),
    )


def describe_external(analysis: Analysis) -> About:
    """What can be said of predictions that came from elsewhere."""
    pack, predictions = analysis.pack, analysis.predictions
    facts = (
        ("Data", f"{pack.source}, {len(pack):,} images of {pack.image_size} pixels"),
        ("Predictions", f"{images(len(predictions), predictions.split)}, predicted elsewhere"),
    )
    return About(pack.dataset, predictions.model, facts, _notes(analysis))


def _notes(analysis: Analysis, card: RunCard | None = None) -> tuple[str, ...]:
    notes = list(card.notes) if card and card.origin else []
    if analysis.findings.accuracy_curve is None and card is None:
        notes.append("No training history came with these predictions; --history FILE adds the curves.")
    if aside := len(analysis.pack.set_aside):
        notes.append(f"{count(aside, 'file')} of the source {'was' if aside == 1 else 'were'} set aside.")
    return tuple(notes)


def _epochs(epochs: int | None) -> str:
    return "its members, " if epochs is None else f"{count(epochs, 'epoch')} in "


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
