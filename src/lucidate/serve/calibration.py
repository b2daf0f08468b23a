"""What a served model's validation images were like: the temperature and threshold to answer with, and what later
images are held against. Made once, kept in RUN/serving.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lucidate.analysis.calibration import calibrate
from lucidate.analysis.confidence import DELTA, RISK, answer_when_sure
from lucidate.core.atomic import atomic_write, sha256
from lucidate.core.errors import LucidateError
from lucidate.core.records import Predictions, RunCard, jsonable, softmax
from lucidate.core.run import RunDir
from lucidate.data.packed import PackedImages, packed_images
from lucidate.data.splits import Splits

NAMES = ("brightness", "contrast", "saturation", "sharpness")
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as JPEG has it
SIDE = 32  # pixels; larger images are looked at through every second, third … pixel, the same on both sides


def image_statistics(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(B, 4) float32 of images (B, S, S, 3), each from 0 to 255, in the order of NAMES.

    brightness: mean luma. contrast: its standard deviation. saturation: mean distance of the largest channel to the
    smallest. sharpness: mean difference of neighbors in a row, in luma.
    """
    step = max(1, images.shape[1] // SIDE)
    seen = images[:, ::step, ::step]
    count, _, width = seen.shape[:3]
    luma = (seen.reshape(-1, 3) @ LUMA).reshape(seen.shape[:3])
    found = np.empty((count, 4), dtype=np.float32)
    flat = luma.reshape(count, -1)
    mean = found[:, 0] = flat @ np.full(flat.shape[1], 1 / flat.shape[1], dtype=np.float32)
    centered = flat - mean[:, None]
    np.sqrt(np.einsum("ij,ij->i", centered, centered) / flat.shape[1], out=found[:, 1])
    red, green, blue = seen[..., 0], seen[..., 1], seen[..., 2]
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    found[:, 2] = spread.reshape(count, -1).mean(1)
    difference = np.abs(luma[:, :, 1:] - luma[:, :, :-1])
    found[:, 3] = difference.reshape(count, -1).mean(1) if width > 1 else 0
    return found


FORMAT = 1  # raise it when the same run would give other numbers
BINS = 10
SAMPLE = 2_000  # validation images that are looked at
CHUNK = 250

Views = Literal["one", "mirror", "mirror-shift"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Histogram(Section):
    """Counts (B,) between B - 1 ascending edges; the first and last bin are open. A value on an edge is above it."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def bins(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """The bin of each value, (N,)."""
        return np.searchsorted(self.edges, values, side="right")


class Calibration(Section):
    """Numbers only, no image.

    views: the test-time views whose answers these are. temperature: logits are divided by it. threshold: of calibrated
    confidence, at or above which to answer; 0: always; None: no threshold is known to keep the risk. risk: share of the
    answers that may be wrong, kept with probability 1 - delta. coverage: share of validation images that are answered;
    error: share of these that were wrong, bound: that could be. ece, nll, brier: as in `analyze.calibration`.
    class_share: (K,) of predicted classes. Histograms: of calibrated confidence and of image statistics, in tenths of
    the validation images. note: why something is missing, in a sentence; empty where nothing is.
    """

    views: Views = "one"
    temperature: float = Field(1.0, ge=1e-3, le=1e3)  # so that probabilities are numbers wherever logits are
    threshold: float | None = None
    risk: float = RISK
    delta: float = DELTA
    coverage: float | None = None
    error: float | None = None
    bound: float | None = None
    num_validation: int = 0
    ece_before: float | None = None
    ece_after: float | None = None
    ece_floor: float | None = None
    nll_before: float | None = None
    nll_after: float | None = None
    brier_before: float | None = None
    brier_after: float | None = None
    class_share: tuple[float, ...] | None = None
    confidence: Histogram | None = None
    brightness: Histogram | None = None
    contrast: Histogram | None = None
    saturation: Histogram | None = None
    sharpness: Histogram | None = None
    note: str = ""

    @property
    def calibrated(self) -> bool:
        """Whether the temperature was fitted on answers of these very views."""
        return self.ece_after is not None

    @property
    def histograms(self) -> dict[str, Histogram]:
        """By signal, what is known: "classes", "confidence", then image statistics."""
        found = {name: each for name in ("confidence", *NAMES) if (each := getattr(self, name)) is not None}
        if self.class_share is None:
            return found
        counts = tuple(round(share * self.num_validation) for share in self.class_share)
        return {"classes": Histogram(edges=(), counts=counts), **found}


class Stored(Section):
    """RUN/serving.json. weights: SHA-256 of those that it speaks of. references: by views."""

    format: int = FORMAT
    weights: str
    references: dict[str, Calibration]


def calibration_of_run(run: RunDir, *, views: Views | Literal["recipe"] = "one") -> Calibration:
    """What a run says of its validation images, as answered with some views; never raises for lack of them.

    views: those that are served; "recipe": those that the run was judged with. From RUN/serving.json where it holds
    them for these weights, else from the run's predictions of its validation split, and kept there if the folder can be
    written to. Image statistics need the images packed on this machine.

    Where only answers with other views are known, their temperature is lent, which is nearer than none, and there is no
    threshold: its promise would be of other answers. Without any, temperature 1. The note says so in both cases.
    """
    card = RunCard.load(run.card)
    wanted = card.recipe.predict.views if views == "recipe" else views
    if wanted == "mirror" and not card.data.flips:
        wanted = "one"  # the same answers
    stored = load_calibrations(run)
    if wanted in stored:
        return stored[wanted]
    if (table := _table(run, card, wanted)) is not None:
        made = calibration_of(table, statistics_of_run(run), views=wanted)
        with suppress(OSError):  # a folder that cannot be written to: it is made again at the next start
            store_calibrations(run, {**stored, wanted: made})
        return made
    return _lent(run, card, stored, views=wanted)


def calibration_of(predictions: Predictions, statistics: Mapping[str, Histogram], *, views: Views) -> Calibration:
    """Calibrate, and count. predictions: of the validation split, with these views."""
    found = calibrate(predictions.logits, predictions.labels)
    temperature = found.temperature
    notes = []
    if found.limited:
        temperature = 1.0  # an end of what is searched would make every answer certain, or none
        notes.append(f"not calibrated: {found.headline}")
    confidence = softmax(predictions.logits / temperature).max(1)
    selective = answer_when_sure(confidence, predictions.correct)
    if selective.threshold is None:
        notes.append(selective.headline)
    classes = np.bincount(predictions.predicted, minlength=predictions.num_classes) / len(predictions)
    measured = {**jsonable(found), **jsonable(selective), "temperature": temperature}
    return Calibration(
        views=views,
        num_validation=len(predictions),
        class_share=tuple(classes.tolist()),
        confidence=in_tenths(confidence),
        note=" ".join(notes),
        **{name: value for name, value in measured.items() if name in Calibration.model_fields},
        **statistics,
    )


def in_tenths(values: NDArray[np.floating]) -> Histogram:
    """A histogram of about as many values in each of ten bins; equal ones share a bin, so there may be fewer."""
    cuts = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    edges = np.unique([float(f"{cut:.6g}") for cut in cuts])  # as they are kept
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return Histogram(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))


def statistics_of_run(run: RunDir) -> dict[str, Histogram]:
    """Histograms of image statistics, over evenly spaced validation images; empty where they are not at hand."""
    found = validation_images(run)
    return {} if found is None else statistics_of(found[0].images, found[1])


def validation_images(run: RunDir) -> tuple[PackedImages, NDArray[np.int64]] | None:
    """A run's packed images, and the rows of its validation split; None where they are not at hand."""
    try:
        card, rows = RunCard.load(run.card), Splits.load(run.splits).validation
    except LucidateError:
        return None
    packed = packed_images(card)
    return (packed, rows) if packed is not None and len(rows) and rows.max() < len(packed.images) else None


def statistics_of(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> dict[str, Histogram]:
    """The same of rows of a store (N, S, S, 3)."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64)]
    parts = [image_statistics(images[chosen[start : start + CHUNK]]) for start in range(0, len(chosen), CHUNK)]
    return {name: in_tenths(values) for name, values in zip(NAMES, np.concatenate(parts).T, strict=True)}


def load_calibrations(run: RunDir) -> dict[str, Calibration]:
    """What RUN/serving.json holds for these weights, by views; empty where it holds none, or is no such file."""
    try:
        stored = Stored.model_validate_json(run.serving.read_bytes())
    except (OSError, ValidationError):
        return {}
    return stored.references if stored.format == FORMAT and stored.weights == sha256(run.weights) else {}


def store_calibrations(run: RunDir, references: Mapping[str, Calibration]) -> None:
    """Write RUN/serving.json anew, for the weights that lie beside it."""
    stored = Stored(weights=sha256(run.weights), references=dict(references))
    text = json.dumps(stored.model_dump(mode="json"), indent=1, allow_nan=False)
    lists = re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text)  # a line each, not one a number
    atomic_write(run.serving, f"{lists}\n".encode())


def _table(run: RunDir, card: RunCard, views: Views) -> Predictions | None:
    """Validation predictions with these views, where the run holds any."""
    path = run.predictions("validation") if views == card.recipe.predict.views else None
    if views == "one" and path is None:
        path = run.one_view("validation")
    try:
        return Predictions.load(path) if path else None
    except LucidateError:
        return None


def _lent(run: RunDir, card: RunCard, stored: Mapping[str, Calibration], *, views: Views) -> Calibration:
    """What can be said where no answers with these views are known."""
    other = card.recipe.predict.views
    lender = stored.get(other)
    if lender is None and (table := _table(run, card, other)) is not None:
        lender = calibration_of(table, statistics_of_run(run), views=other)
    mend = f"run: lucidate predict {run.path.name} --split validation"  # its whole path is nobody's business
    if lender is None:
        note = f"not calibrated: the run has no predictions of its validation split; {mend}"
        return Calibration(views=views, note=note, **statistics_of_run(run))
    note = f"calibrated for answers averaged over views ({other}), not for {views}: the temperature is near, "
    note += f"a threshold would promise too much; {mend}"
    kept = {"temperature", "num_validation", "class_share", *NAMES}
    return Calibration(views=views, note=note, **{name: getattr(lender, name) for name in kept})
