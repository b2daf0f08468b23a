"""The findings of a run, or of somebody else's predictions, with the images they speak of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lucidate.analysis.findings import Findings, Images, analyze
from lucidate.analysis.predictions_file import read_external
from lucidate.core.errors import RunError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import History, Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack, open_pack
from lucidate.data.run_data import open_data
from lucidate.data.splits import require_name

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
    pack, images = data.pack, _images(data.pack, dict(data.splits))
    history = History.load(run.history) if run.history.exists() else None  # an ensemble has none
    findings = analyze(predictions, history=history, images=images, seed=card.seed)
    return Analysis(predictions, findings, pack)


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
    findings = analyze(table, history=History.load(history) if history else None, images=images)
    return Analysis(table, findings, pack)


def _images(pack: Pack, rows: Mapping[str, NDArray[np.int64]]) -> Images:
    """The store's images by split; rows: of each split."""
    return Images(
        ids={name: pack.ids[index] for name, index in rows.items()},
        index=rows,
        labels={name: pack.labels[index] for name, index in rows.items()},
    )
