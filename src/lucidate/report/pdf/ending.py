"""The last chapters: what the figures cannot tell, and what would be needed to make the run again."""

from __future__ import annotations

from lucidate.analysis.formatting import count, duration, percent, without_images
from lucidate.report.pdf.content import Chapter, Facts, Points, ReportData, plain

FEW = 50  # images of a class, below which its accuracy is known to ±10 points or worse
AGREES = 0.01  # difference of mean confidence and accuracy that is not worth a warning
MOST_NOTES = 12  # of a run card's notes; a network fitted to small images brings many
LITERAL = frozenset({"Command", "Commit", "Hash of the images"})


def limits(data: ReportData) -> Chapter:
    """What a reader must not conclude."""
    notes = list(data.card.notes)
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"{count(len(notes) - MOST_NOTES, 'more note')} of this kind in run.json."]
    test = [] if data.card.origin else [_test(data)]  # a note says what is not known of it
    points = Points((*notes, *_data(data), *test, _seed(data), *_model(data)))
    return Chapter("What these figures do not tell", (points,))


def run_card(data: ReportData) -> Chapter:
    """Versions, hardware, seed, command."""
    card = data.card
    hardware = card.hardware
    parts = (
        hardware.get("accelerator"),
        hardware.get("processor"),
        count(hardware["cores"], "core") if hardware.get("cores") else None,
        f"{hardware['memory_gib']:g} GiB" if hardware.get("memory_gib") else None,
        hardware.get("system"),
    )
    prepared = ", ".join(f"{key} {plain(value)}" for key, value in card.preprocess.items())
    facts = (
        ("Run", f"{card.name}, made {card.created}"),
        ("Command", card.command or "called from Python"),
        ("Commit", card.commit or "not from a checkout"),
        ("Seed", str(card.seed)),
        ("Data", f"{card.data.source}, {count(card.data.images, 'image')}"),
        ("Hash of the images", card.data.pack),
        ("Preprocessing", prepared),
        ("Hardware", ", ".join(str(part) for part in parts if part)),
        ("Threads", f"{card.threads}" + (f" in each of {card.processes} processes" if card.processes > 1 else "")),
        ("Time", f"{duration(card.results.train_seconds)} of training, {duration(card.results.seconds)} in all"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
    )
    return Chapter("Run card", (Facts(facts, LITERAL),))


def _data(data: ReportData) -> list[str]:
    card, points = data.card, []
    if card.split.requested != card.split.scheme:
        points.append(
            f"The split asked for was {card.split.requested}, but the source has no test images of its own: all were "
            f"pooled and divided {card.split.scheme}."
        )
    if aside := len(card.data.set_aside):
        points.append(
            f"{count(aside, 'file')} of the source could not be used and {'was' if aside == 1 else 'were'} set aside."
        )
    info = data.findings.per_class_accuracy
    if info.missing:
        points.append(
            f"{without_images(info.missing, data.split).strip()} Nothing is known of how well these are recognized."
        )
    fewest = int(info.total[info.total > 0].min())
    if fewest < FEW:
        points.append(
            f"The smallest class has {count(fewest, f'{data.split} image')}: accuracies of single classes are "
            "known only as well as their intervals say."
        )
    points.append("Labels are taken as they are: a wrong one counts as a mistake of the model, or hides one.")
    return points


def _test(data: ReportData) -> str:
    opened = data.card.results.test_openings
    if data.split != "test" or not opened:
        return f"These are {data.split} images: where choices were made on them, the accuracy flatters the model."
    if opened == 1:
        return "The sealed test split was opened once; what there was to choose was chosen on validation images."
    return (
        f"The test split was opened {opened} times: choices may have been made with its results in view, and its "
        "accuracy may flatter the model."
    )


def _seed(data: ReportData) -> str:
    begin, of = f"One run with one seed ({data.card.seed})", "that of the seed"
    others = "another one gives another network, and a somewhat other accuracy"
    if data.card.origin:
        begin, of = "One model", "that of training"
        others = "the same network trained once more gives a somewhat other accuracy"
    elif data.ensemble:
        begin, of = "One ensemble", "that of training"
        others = "other members, or the same ones from other seeds, give a somewhat other accuracy"
    return f"{begin}. The intervals count the luck of which images were drawn, not {of}: {others}."


def _model(data: ReportData) -> list[str]:
    summary = data.findings.summary
    gap = summary.overconfidence
    said = f"mean confidence is {percent(summary.mean_confidence)} at an accuracy of {percent(summary.accuracy)}"
    if abs(gap) < AGREES:
        sure = f"Confidence and accuracy agree on the whole ({said}); for single images this promises nothing."
    else:
        way = "claims more than it keeps" if gap > 0 else "is less sure than it could be"
        sure = f"The model {way}: {said}. Do not read its confidence as a probability."
    like = "The images it was judged on come from the same source as those it learned from. "
    same = "" if data.card.origin else like
    return [
        sure,
        f"{same}How it does on images from elsewhere, of other cameras, crops or seasons, is not known.",
        f"It answers with one of its {data.classes:,} classes whatever it is shown; it cannot say “none of these”.",
    ]
