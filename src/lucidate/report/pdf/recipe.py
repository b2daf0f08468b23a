"""A recipe in words: what a reader must know to judge how a model was trained.

Settings that have no words here are listed by their names where they differ from the defaults, so that nothing that
was chosen is passed over in silence.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from lucidate.analysis.formatting import count
from lucidate.core.recipe import AugmentRecipe, TrainRecipe
from lucidate.core.records import RunCard
from lucidate.core.registry import ENSEMBLE, TIMM

OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD with Nesterov momentum", "muon": "Muon"}
VIEWS = {
    "one": "the image as it is",
    "mirror": "mean over the image and its mirror image",
    "mirror-shift": "mean over the image, its mirror image, and both shifted by a pixel",
}
MODELS = {
    "compact": "three blocks of two convolutions with batch normalization, global average pooling, a dense layer",
    "fastnet": "a convolutional network built for accuracy per second: whitened patches first, then three groups of "
    "convolutions that begin as the identity, after K. Jordan (arXiv:2404.00498)",
}
AUGMENTATIONS = {
    "translate": "shifts of at most {} pixels",
    "rotation": "rotation by at most {} of a turn",
    "zoom": "zoom by at most {}",
    "shift": "shifts of at most {} of the side",
    "cutout": "a hidden square of {} pixels",
    "trivial": "TrivialAugment",
    "mixup": "mixup, Beta({0}, {0})",
    "cutmix": "CutMix, Beta({0}, {0})",
}
BEGINNING = ("pretrained", "weights")  # options of timm models that have a line of their own
# Settings of [train] that the sentences below speak of, or that only hold for another choice than was made.
TOLD = {
    "epochs",
    "batch_size",
    "lr",
    "optimizer",
    "head_lr",
    "bias_lr",
    "weight_decay",
    "momentum",
    "muon_momentum",
    "label_smoothing",
    "schedule",
    "warmup_epochs",
    "plateau_patience",
    "plateau_factor",
    "early_stop",
    "restore_best",
    "average",
    "hard_epochs",
    "hard_share",
    "precision",
    "probe_steps",
    "layer_decay",
    "freeze",
}


def recipe_facts(card: RunCard) -> tuple[tuple[str, str], ...]:
    """Label and words of each part of a run's recipe; parts without a choice are left out."""
    if card.recipe.model.name == ENSEMBLE:
        return _ensemble_facts(card)
    if card.origin:
        return (
            ("Model", f"{card.model.name}, a model from elsewhere"),
            ("Parameters", f"{card.model.parameters:,}"),
            ("Training", "not known here: neither its recipe nor its images came with it"),
            ("When asked", VIEWS.get(card.recipe.predict.views, card.recipe.predict.views)),
        )
    train = card.recipe.train
    facts = (
        ("Model", _model(card)),
        ("Parameters", f"{card.model.parameters:,} trainable"),
        ("Begins with", _beginning(card)),
        ("Fine-tuning", _tuning(card)),
        ("Training", _training(card)),
        ("Optimizer", _optimizer(train)),
        ("Schedule", _schedule(train)),
        ("Regularization", _regularization(train)),
        ("Augmentation", _augmentation(card.recipe.augment, flips=card.data.flips)),
        ("Weights kept", _kept(train)),
        ("When asked", VIEWS.get(card.recipe.predict.views, card.recipe.predict.views)),
        ("Arithmetic", card.precision),
        ("Other settings", _others(train)),
    )
    return tuple((label, words) for label, words in facts if words)


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
    options = "; ".join(f"{key} {_plain(value)}" for key, value in told.items())
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


def _tuning(card: RunCard) -> str:
    """Of models that begin with weights; others leave these settings alone."""
    train, options = card.recipe.train, card.model.options
    if not (options.get("weights") or options.get("pretrained")):
        return ""
    parts = (
        (train.probe_steps, f"first the head alone, by {count(train.probe_steps, 'step')} of L-BFGS"),
        (train.layer_decay < 1, f"rates times {train.layer_decay:g} a layer from the head down"),
        (train.freeze, f"the first {100 * train.freeze:g} % of the layers stay as they are"),
    )
    return "; ".join(words for wanted, words in parts if wanted)


def _training(card: RunCard) -> str:
    train, ran = card.recipe.train, card.results.epochs
    epochs = count(train.epochs, "epoch")
    if ran is not None and ran != train.epochs:
        epochs = f"{ran} of at most {epochs}"
    words = f"{epochs}, batches of {train.batch_size:,}"
    if train.hard_epochs:
        words += f"; the last {train.hard_epochs} on the harder {100 * train.hard_share:g} % of the images alone"
    return words


def _optimizer(train: TrainRecipe) -> str:
    rates = [f"learning rate {train.lr:g}"]
    if train.optimizer == "muon":
        rates[0] += " for filters"
        parts = ((train.head_lr, "the head"), (train.bias_lr, "biases"))
        rates += [f"{rate:g} for {what}" for rate, what in parts if rate]
        rates.append(f"momentum {train.muon_momentum:g} and {train.momentum:g}")
    elif train.optimizer == "sgd":
        rates.append(f"momentum {train.momentum:g}")
    return f"{OPTIMIZERS.get(train.optimizer, train.optimizer)}; {', '.join(rates)}"


def _schedule(train: TrainRecipe) -> str:
    words = {
        "constant": "constant rate",
        "cosine": "rate falls to zero along a cosine",
        "linear": "rate falls to zero along a line",
        "plateau": f"rate times {train.plateau_factor:g} after {count(train.plateau_patience, 'epoch')} without a "
        "better validation accuracy",
    }[train.schedule]
    if train.warmup_epochs:
        words += f"; warm-up over {count(train.warmup_epochs, 'epoch')}"
    if train.early_stop:
        words += f"; training ends after {count(train.early_stop, 'epoch')} without a better validation accuracy"
    return words


def _regularization(train: TrainRecipe) -> str:
    parts = [
        (train.weight_decay, f"weight decay {train.weight_decay:g}"),
        (train.label_smoothing, f"label smoothing {train.label_smoothing:g}"),
    ]
    return ", ".join(words for value, words in parts if value)


def _augmentation(augment: AugmentRecipe, *, flips: bool) -> str:
    values = augment.model_dump()
    flip = values.pop("flip")
    parts = []
    if flip is True or (flips and flip == "auto"):
        parts.append("mirror images at random")
    elif flips and flip == "alternating":
        parts.append("mirror images every other epoch")
    for key, value in values.items():
        if value:
            parts.append(AUGMENTATIONS[key].format(_plain(value)) if key in AUGMENTATIONS else f"{key} {_plain(value)}")
    return ", ".join(parts) or "none"


def _kept(train: TrainRecipe) -> str:
    words = "of the epoch with the best validation accuracy" if train.restore_best else "of the last epoch"
    return f"{words}, averaged over steps (decay {train.average:g})" if train.average else words


def _others(train: BaseModel) -> str:
    fields = type(train).model_fields
    untold = {key: (getattr(train, key), field.default) for key, field in fields.items() if key not in TOLD}
    chosen = {key: value for key, (value, default) in untold.items() if value != default}
    return ", ".join(f"{key} {_plain(value)}" for key, value in chosen.items())


def _plain(value: Any) -> str:
    """A setting as it is said: 0.25, "48, 128, 192", yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
