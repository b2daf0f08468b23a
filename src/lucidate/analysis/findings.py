"""Every question asked of one table of predictions, a run's or somebody else's, answered and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucidate.analysis import per_class, samples
from lucidate.analysis.confidence import ConfidenceHistogram, confidence_histogram
from lucidate.analysis.confusion import ConfusionMatrix, TopConfusions, confusion_matrix, top_confusions
from lucidate.analysis.dataset import ClassDistribution, ExamplesPerClass, class_distribution, examples_per_class
from lucidate.analysis.predictions_file import read_external
from lucidate.analysis.summary import Summary, TrainingCurve, accuracy_curve, loss_curve, summary
from lucidate.core.atomic import atomic_write
from lucidate.core.errors import RunError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import History, Predictions, RunCard, jsonable
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack, open_pack
from lucidate.data.splits import open_data, require_name


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images by split, for the questions that look at data rather than at predictions.

    Keys: split names in display order. ids: (N,) str; index: (N,) int64 rows of the packed store;
    labels: (N,) int64.
    """

    ids: Mapping[str, NDArray[np.str_]]
    index: Mapping[str, NDArray[np.int64]]
    labels: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Findings:
    """One Info a question, in the order of the gallery; curves are None for predictions without a training history."""

    summary: Summary
    class_distribution: ClassDistribution
    examples_per_class: ExamplesPerClass
    accuracy_curve: TrainingCurve | None
    loss_curve: TrainingCurve | None
    confusion_matrix: ConfusionMatrix
    top_confusions: TopConfusions
    classification_report: per_class.ClassificationReport
    per_class_accuracy: per_class.PerClassAccuracy
    true_class_probability: per_class.TrueClassProbability
    confidence: ConfidenceHistogram
    most_confident_wrong: samples.MostConfident
    misclassified: samples.Misclassified
    hard_but_correct: samples.HardButCorrect
    most_confident_right: samples.MostConfident

    def save(self, folder: Path) -> None:
        """Write `<question>.json` for every question: the record's fields and its headline."""
        for field in fields(self):
            info = getattr(self, field.name)
            if info is not None:
                content = {"headline": info.headline, **jsonable(info)}
                atomic_write(folder / f"{field.name}.json", json.dumps(content, indent=1).encode())


def analyze(
    predictions: Predictions, *, history: History | None = None, images: Images | None = None, seed: int = 0
) -> Findings:
    """Answer every question about one table of predictions.

    images: the data set by split; without it, the predicted images stand for the data set.
    seed: of the random samples shown.
    """
    if images is None:
        split = predictions.split
        images = Images({split: predictions.ids}, {split: predictions.index}, {split: predictions.labels})
    names = predictions.class_names
    shown = next(iter(images.labels))  # the first split: training images where there are any
    drawn = images.ids[shown], images.index[shown], images.labels[shown]
    return Findings(
        summary=summary(predictions),
        class_distribution=class_distribution(images.labels, names),
        examples_per_class=examples_per_class(*drawn, names, split=shown, seed=seed),
        accuracy_curve=accuracy_curve(history) if history else None,
        loss_curve=loss_curve(history) if history else None,
        confusion_matrix=confusion_matrix(predictions),
        top_confusions=top_confusions(predictions),
        classification_report=per_class.classification_report(predictions),
        per_class_accuracy=per_class.per_class_accuracy(predictions),
        true_class_probability=per_class.true_class_probability(predictions),
        confidence=confidence_histogram(predictions),
        most_confident_wrong=samples.most_confident(predictions, correct=False),
        misclassified=samples.misclassified(predictions, seed=seed),
        hard_but_correct=samples.hard_but_correct(predictions),
        most_confident_right=samples.most_confident(predictions, correct=True),
    )


NAMED = 4  # classes that an error names


@dataclass(frozen=True, eq=False)
class Analysis:
    """Predictions, what was found in them, and the store that holds their images."""

    predictions: Predictions
    findings: Findings
    pack: Pack


def analyze_run(
    run: RunDir, *, split: str = "test", pack: Pack | None = None, reporter: Reporter | None = None
) -> Analysis:
    """Analyze one split of a run. pack: its images, where they are open already.

    Raises RunError where the split has not been predicted yet.
    """
    card = RunCard.load(run.card)
    predictions = predictions_of(run, split)
    if predictions.class_names != card.classes:
        raise RunError(
            f"{run.card}: expected the {predictions.num_classes} classes of {run.predictions(split)}, received "
            f"{', '.join(map(repr, card.classes[:NAMED]))}{' …' if len(card.classes) > NAMED else ''}; restore the one "
            "or make the other again"
        )
    data = open_data(run, pack=pack, reporter=reporter)
    history = History.load(run.history) if run.history.exists() else None  # an ensemble has none
    images = _images(data.pack, dict(data.splits))
    return Analysis(predictions, analyze(predictions, history=history, images=images, seed=card.seed), data.pack)


def predictions_of(run: RunDir, split: str) -> Predictions:
    """A run's predictions of one split of its images. Raises RunError where there are none yet."""
    require_name(split)
    if not run.predictions(split).exists():
        raise RunError(
            f"run: expected predictions of the {split} split in {run.path}, received none; "
            f"make them with: lucidate predict {run.path} --split {split}"
        )
    return Predictions.load(run.predictions(split))


def analyze_external(
    predictions: Path,
    source: str,
    *,
    history: Path | None = None,
    split: str | None = None,
    image_size: int | None = None,
    reporter: Reporter | None = None,
) -> Analysis:
    """Analyze a table made by anybody, over the images of any source. Raises PredictionsError, SourceError."""
    pack = open_pack(source, image_size=image_size, reporter=reporter or Silent())
    table = read_external(predictions, pack, split=split)
    given = {name: np.flatnonzero(pack.given == name) for name in ("train", "test", "") if name in pack.given}
    images = _images(pack, {name or "all": index for name, index in given.items()})
    found = analyze(table, history=History.load(history) if history else None, images=images)
    return Analysis(table, found, pack)


def _images(pack: Pack, rows: Mapping[str, NDArray[np.int64]]) -> Images:
    """The store's images by split; rows: of each split."""
    ids = {name: pack.ids[index] for name, index in rows.items()}
    return Images(ids, rows, {name: pack.labels[index] for name, index in rows.items()})
