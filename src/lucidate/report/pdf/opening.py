"""The first page, and the chapters up to the results: the question, the data, the method, the training."""

from __future__ import annotations

from lucidate.analysis.formatting import count, duration, images, percent, span
from lucidate.analysis.statistics import share_interval
from lucidate.analysis.summary import TrainingCurve
from lucidate.core.records import RunCard
from lucidate.core.registry import ENSEMBLE, TIMM
from lucidate.report.figures.tile_grid import examples_grid
from lucidate.report.pdf import content
from lucidate.report.pdf.content import Block, Chapter, Figure, KeyNumber, ReportData, Table, Tile, Tiles
from lucidate.report.theme import short_names

NAMES_LISTED = 12  # classes that a sentence lists
FEWEST = 12  # classes whose numbers of images are drawn: what fits on the first page
EXAMPLE_ROWS = 10  # classes whose examples are shown
SETTINGS = {"epochs", "batch_size", "lr", "optimizer", "schedule", "flip", "views"}  # told whatever their values
BEGINNING = ("pretrained", "weights")  # options of timm models that have a line of their own
MODELS = {
    "compact": "three blocks of two convolutions with batch normalization, global average pooling, a dense layer",
    "fastnet": "a convolutional network built for accuracy per second: whitened patches first, then three groups of "
    "convolutions that begin as the identity, after K. Jordan (arXiv:2404.00498)",
}
USES = {
    "train": "the weights are fitted to these",
    "validation": "settings and epochs are chosen on these",
    "test": "sealed until the end",
}


def key_numbers(data: ReportData) -> tuple[KeyNumber, ...]:
    """What a reader should keep."""
    card, summary = data.card, data.findings.summary
    results = card.results
    split = summary.split.capitalize()
    spread = f"95 % interval {span(summary.low, summary.high)}"
    baseline = f"always the most frequent class: {percent(summary.majority_accuracy)}"
    numbers = [KeyNumber(percent(summary.accuracy), f"{split} accuracy", f"{spread}; {baseline}")]
    if data.split != "validation" and results.val_accuracy is not None:
        ends = share_interval(results.val_accuracy, card.split.sizes.get("validation", 0))
        spread = f"95 % interval {span(*ends)}"
        numbers.append(KeyNumber(percent(results.val_accuracy), "Validation accuracy", spread))
    numbers.append(KeyNumber(f"{summary.errors:,}", "Mistakes", f"of {images(summary.images, summary.split)}"))
    numbers.append(KeyNumber(f"{card.model.parameters:,}", "Parameters", "in its file" if card.origin else "trainable"))
    if results.train_seconds is not None:
        epochs = f"{count(results.epochs, 'epoch')} on " if results.epochs else "on "
        numbers.append(KeyNumber(duration(results.train_seconds), "Training", epochs + content.machine(card)))
    return tuple(numbers)


def in_short(data: ReportData) -> content.Points:
    """The findings that a reader in a hurry needs."""
    findings = data.findings
    told = [findings.per_class_accuracy.headline, findings.top_confusions.headline, findings.confidence.headline]
    if data.levels:
        told.append(data.levels.headline)
    return content.Points(tuple(told))


def question(data: ReportData) -> Chapter:
    """What was asked."""
    card, summary = data.card, data.findings.summary
    who = "An ensemble of networks" if data.ensemble else data.model
    unseen = "" if summary.split in ("train", "all") else " that it had not learned from"
    learned = f"learned from {count(card.split.sizes.get('train', 0), 'labeled image')} and was then"
    if card.origin:
        unseen, learned = "", "came from elsewhere and was"
    words = (
        f"What does an image show? {who} {learned} asked to name the class of "
        f"{images(summary.images, summary.split)}{unseen}. Each belongs to one of {data.classes:,} classes: "
        f"{class_list(card.classes)}. This report says how often the answer is right, which classes are mixed up, how "
        "far the model's own confidence can be trusted, and what none of these figures can tell."
    )
    return Chapter("The question", (words,))


def class_list(names: tuple[str, ...]) -> str:
    """Class names in a sentence, the first ones of many."""
    shown = short_names(names)
    if len(names) > NAMES_LISTED:
        return f"{', '.join(shown[:NAMES_LISTED])} and {len(names) - NAMES_LISTED:,} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def the_data(data: ReportData) -> Chapter:
    """The images and how they were divided."""
    card, info = data.card, data.findings.class_distribution
    side = card.data.image_size
    words = (
        f"The images come from {card.data.dataset}: {count(card.data.images, 'image')} of {side}×{side} pixels in "
        f"{data.classes:,} classes, divided with a fixed seed. {info.headline}"
    )
    drawn = content.of_classes(
        "class_distribution",
        info,
        info.counts.sum(axis=0),
        "Images of each class",
        which="{} smallest" if info.imbalance > 1 else "first {}",
        most=FEWEST,
        width=0.56 * content.FULL - 0.12,
    )
    return Chapter("The data", (words, content.Beside(drawn, _split_table(data), share=0.56), *_examples(data)))


def method(data: ReportData) -> Chapter:
    """The model and its recipe."""
    blocks: list[Block] = [content.Facts(model_facts(data.card))]
    if not data.ensemble and not data.card.origin:  # others were not trained here
        blocks.append(settings_table(data.card))
    return Chapter("The method", tuple(blocks))


def training(data: ReportData) -> Chapter | None:
    """The curves; None where there is no history, as of an ensemble."""
    accuracy, loss = data.findings.accuracy_curve, data.findings.loss_curve
    if accuracy is None or loss is None:
        return None
    words = (
        f"{count(len(accuracy.train), 'epoch')} took {duration(data.card.results.train_seconds)} on "
        f"{content.machine(data.card)}. Values of training are means over an epoch, of images that were augmented and "
        "a network that was still changing: they may lie below those of validation."
    )
    return Chapter("The training", (words, content.Beside(_curve(accuracy), _curve(loss))))


def model_facts(card: RunCard) -> tuple[tuple[str, str], ...]:
    """Label and words of what is known of a run's model; parts without a choice are left out."""
    if card.recipe.model.name == ENSEMBLE:
        return _ensemble_facts(card)
    views, parameters = card.recipe.predict.views, f"{card.model.parameters:,}"
    if card.origin:
        return (
            ("Model", f"{card.model.name}, a model from elsewhere"),
            ("Parameters", parameters),
            ("Training", "not known here: neither its recipe nor its images came with it"),
            ("Test-time views", views),
        )
    ran, most = card.results.epochs, card.recipe.train.epochs
    epochs = f"{count(ran, 'epoch')}{f' of at most {most:,}' if ran < most else ''}" if ran else ""
    facts = (
        ("Model", _model(card)),
        ("Parameters", f"{parameters} trainable"),
        ("Begins with", _beginning(card)),
        ("Trained for", epochs),
        ("Arithmetic", card.precision),
    )
    return tuple((label, words) for label, words in facts if words)


def settings_table(card: RunCard) -> Table:
    """The settings of a training that every reader asks for, and all others that are not at their defaults."""
    rows, sections = [], {"train": card.recipe.train, "augment": card.recipe.augment, "predict": card.recipe.predict}
    for section, settings in sections.items():
        for name, field in type(settings).model_fields.items():
            value = getattr(settings, name)
            if name in SETTINGS or value != field.default:
                words = content.plain(value)
                if value == "auto" and name == "flip":
                    words += ": they do" if card.data.flips else ": they do not"
                rows.append((f"{section}.{name}", words, field.description or ""))
    head = ("Setting", "Value", "What it is")
    note = "Settings that are not listed are at their defaults."
    return Table("The recipe", head, tuple(rows), "lll", wide=2, note=note)


def _ensemble_facts(card: RunCard) -> tuple[tuple[str, str], ...]:
    """An ensemble was not trained: its members were, each by a recipe of its own."""
    options = card.model.options
    members = card.recipe.model.options.get("members", [])
    named = (f"{m['name']} ({m['model']['name']}, share {m['share']:.2f})" for m in members)
    ways = {
        "softmax": "the mean of the members' probabilities",
        "logits": "the mean of the members' logits",
        "weighted": "the weighted mean of the members' probabilities, shares fitted on validation images",
        "greedy": "the mean of the members selected on validation images, by forward selection with replacement",
    }
    method = str(options.get("method", ""))
    return (
        ("Model", f"ensemble of {len(members)} networks, each trained by a recipe of its own"),
        ("Members", "; ".join(named)),
        ("Combination", ways.get(method, method)),
        ("Parameters", f"{card.model.parameters:,} trainable, all members together"),
    )


def _model(card: RunCard) -> str:
    name = card.model.name
    told = {key: value for key, value in card.model.options.items() if not (name.startswith(TIMM) and key in BEGINNING)}
    options = "; ".join(f"{key} {content.plain(value)}" for key, value in told.items())
    words = f"{name.removeprefix(TIMM)} of timm" if name.startswith(TIMM) else name
    if name in MODELS:
        words += f": {MODELS[name]}"
    return f"{words} ({options})" if options else words


def _beginning(card: RunCard) -> str:
    options = card.model.options
    if not card.model.name.startswith(TIMM):
        return ""
    if options.get("weights"):
        return f"the weights of {options['weights']}"
    return "pretrained weights, those that timm names on the hub" if options.get("pretrained") else "random weights"


def _curve(info: TrainingCurve) -> Figure:
    return content.drawn(f"{info.measure}_curve", info, info.headline, width=content.HALF, height=2.1)


def _split_table(data: ReportData) -> Table:
    card = data.card
    total = max(sum(card.split.sizes.values()), 1)
    rows = []
    for name, size in card.split.sizes.items():
        use = USES.get(name, "") if not card.origin else ""
        if name == "test" and card.results.test_openings:
            opened = card.results.test_openings
            use = f"opened {'once' if opened == 1 else f'{opened} times'}, to judge"
        rows.append((f"{name}\n{use}", f"{size:,}", percent(size / total)))
    how = {"official": "test images as the source gives them", "80-10-10": "all images pooled, then drawn by class"}
    scheme = card.split.scheme
    note = f"Scheme {scheme}: {how[scheme]}." if scheme in how else f"Scheme {scheme}."
    return Table("What the splits are for", ("Split", "Images", "Share"), tuple(rows), "lrr", note=note)


def _examples(data: ReportData) -> tuple[Tiles, ...]:
    """Images of each class; none where there is none."""
    info = data.findings.examples_per_class
    grid = examples_grid(info)
    if grid is None or data.pixels is None:
        return ()
    rows = min(len(grid.row_labels), EXAMPLE_ROWS)
    cells: list[Tile | None] = [None] * (rows * grid.columns)
    for position, cell in enumerate(grid.cells.tolist()):
        if cell < len(cells):
            cells[cell] = Tile(content.tile(data.image(grid.index[position]), alt=grid.words[position][0]))
    note = f"The first {rows} of these; the gallery shows more." if rows < len(grid.row_labels) else ""
    names = tuple(short_names(grid.row_labels, 14)[:rows])
    return (Tiles(info.headline, tuple(cells), grid.columns, names, note),)
