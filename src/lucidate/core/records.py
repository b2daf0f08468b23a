"""The records that rooms exchange: what a model predicted, how its training went, a run card."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lucidate.core.atomic import atomic_path, atomic_write
from lucidate.core.errors import PredictionsError, RunError
from lucidate.core.recipe import Recipe
from lucidate.core.text import one_line

METADATA_KEY = b"lucidate"
LONGEST_SLUG = 60  # characters; file systems allow 255 bytes, and figures add their own names


@dataclass(frozen=True, eq=False)
class Predictions:
    """One model's answers on one split, immutable; joined to images by `ids`, never by position.

    ids: (N,) str, unique. index: (N,) int64, row of the image in its packed store.
    labels: (N,) int64 in [0, K). logits: (N, K) float32, no NaN; softmax of a row gives its probabilities.
    dataset: slug used in file names. split: "train", "validation", "test" or "all".
    Raises PredictionsError where these do not hold.
    """

    ids: NDArray[np.str_]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    class_names: tuple[str, ...]
    dataset: str
    split: str
    model: str

    def __post_init__(self) -> None:
        check_scores(self.labels, self.logits, self.class_names, what="logits")
        if not len(self.ids) == len(self.index) == len(self):
            raise PredictionsError(
                f"predictions: expected one id and index a label ({len(self)}), "
                f"received {len(self.ids)} ids and {len(self.index)} indices"
            )
        if len(np.unique(self.ids)) != len(self):
            raise PredictionsError("predictions: expected unique ids, received some of them twice")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, (N, K) in float64: float32 would tie the most confident rows at 1."""
        return softmax(self.logits)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) class of the highest logit; the lower index on a tie."""
        return self.logits.argmax(axis=1).astype(np.int64)

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """(N,) probability of the predicted class."""
        return self.probabilities.max(axis=1)

    @cached_property
    def true_probability(self) -> NDArray[np.float64]:
        """(N,) probability given to the true class."""
        return self.probabilities[np.arange(len(self)), self.labels]

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) whether the predicted class is the true one."""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        """Share of right predictions, 0 to 1."""
        return float(self.correct.mean())

    def save(self, path: str | Path) -> None:
        """Write a Parquet table: id, index, label, logits (float32 list of K); the rest in its metadata."""
        about = {key: getattr(self, key) for key in ("class_names", "dataset", "split", "model")}
        logits = pa.FixedSizeListArray.from_arrays(pa.array(self.logits.ravel()), self.num_classes)
        columns = {"id": pa.array(self.ids.tolist()), "index": self.index, "label": self.labels, "logits": logits}
        table = pa.table(columns, metadata={METADATA_KEY: json.dumps(about).encode()})
        with atomic_path(Path(path)) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what `save` wrote. Raises PredictionsError for any other file."""
        try:
            table = pq.read_table(path)
            about = json.loads((table.schema.metadata or {})[METADATA_KEY])
            logits = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        except FileNotFoundError:
            raise PredictionsError(f"{path}: expected a predictions table, received no file") from None
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise PredictionsError(
                f"{path}: expected a predictions table that lucidate wrote, received {error}"
            ) from None
        return cls(
            ids=np.array(table["id"].to_pylist(), dtype=np.str_),
            index=table["index"].to_numpy(),
            labels=table["label"].to_numpy(),
            logits=logits.astype(np.float32).reshape(len(table), -1),
            class_names=tuple(about.pop("class_names")),
            **about,
        )


def check_scores(labels: NDArray[Any], scores: NDArray[Any], class_names: tuple[str, ...], *, what: str) -> None:
    """Refuse labels and scores that cannot belong together. Raises PredictionsError."""
    if scores.ndim != 2 or len(scores) != len(labels):
        raise PredictionsError(
            f"{what}: expected shape ({len(labels)}, {len(class_names)}), one row a label, received {scores.shape}"
        )
    if scores.shape[1] != len(class_names):
        raise PredictionsError(f"{what}: expected {len(class_names)} classes, received {scores.shape[1]} columns")
    if not len(labels):
        raise PredictionsError(f"{what}: expected at least one row, received none")
    if (rows := np.flatnonzero(np.isnan(scores).any(axis=1))).size:
        raise PredictionsError(f"{what}: expected numbers, received NaN (first in row {rows[0]})")
    # One class at minus infinity is a probability of 0; plus infinity, or nothing else in a row, is no probability.
    if (rows := np.flatnonzero(np.isposinf(scores).any(axis=1) | ~np.isfinite(scores).any(axis=1))).size:
        raise PredictionsError(f"{what}: expected finite numbers, received infinity (first in row {rows[0]})")
    if (rows := np.flatnonzero((labels < 0) | (labels >= len(class_names)))).size:
        which = f"{labels[rows[0]]} (row {rows[0]}, {rows.size} in all)"
        raise PredictionsError(f"labels: expected 0 to {len(class_names) - 1}, received {which}")


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Rows of logits as probabilities, in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class History:
    """Training as Keras writes it: one value an epoch in each list, epoch 0 first.

    Accuracies are shares from 0 to 1; losses are mean cross-entropies in nats; `epoch_seconds` is wall time; `images`
    are those that were trained on, fewer than all where a budget ended the epoch.
    """

    accuracy: tuple[float, ...] = ()
    loss: tuple[float, ...] = ()
    val_accuracy: tuple[float, ...] = ()
    val_loss: tuple[float, ...] = ()
    learning_rate: tuple[float, ...] = ()
    epoch_seconds: tuple[float, ...] = ()
    images: tuple[float, ...] = ()

    def with_epoch(self, **values: float) -> History:
        """A new history with one more epoch; every list must be given its value."""
        if missing := {field.name for field in fields(self)} ^ values.keys():
            raise ValueError(f"history: expected a value for every list, differing: {sorted(missing)}")
        return History(**{key: (*getattr(self, key), value) for key, value in values.items()})

    @property
    def epochs(self) -> int:
        return len(self.loss)

    def save(self, path: Path) -> None:
        atomic_write(path, json.dumps(jsonable(self), indent=1, allow_nan=False).encode())

    @classmethod
    def load(cls, path: Path) -> History:
        """Read a history.json: ours, or the `history.history` that Keras gives. Raises RunError."""
        try:
            history = cls.from_lists(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunError(f"{path}: expected a training history, received no file") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: expected lists of numbers as Keras writes them, received {error}") from None
        wanted = ("accuracy", "loss", "val_accuracy", "val_loss")
        lengths = {key: len(getattr(history, key)) for key in wanted}
        if len(set(lengths.values())) != 1 or not lengths["loss"]:
            raise RunError(f"{path}: expected {', '.join(wanted)} of one length, received lengths {lengths}")
        return history

    @classmethod
    def from_lists(cls, values: Mapping[str, Any]) -> History:
        """A history from what `jsonable` made of one; null is NaN, a missing list is empty, other keys are left out."""
        numbers = {field.name: values.get(field.name, ()) for field in fields(cls)}
        return cls(**{key: tuple(float("nan" if x is None else x) for x in found) for key, found in numbers.items()})


class Section(BaseModel):
    """A frozen part of a run card."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataCard(Section):
    """The images: source as the user wrote it, where it lay (None where it is embedded), hash of the packed store."""

    source: str
    path: str | None
    dataset: str
    pack: str
    images: int
    image_size: int
    flips: bool
    set_aside: tuple[dict[str, str], ...]


class SplitCard(Section):
    """The scheme that was used, the one that was asked for, and how many images each split has."""

    scheme: str
    requested: str
    sizes: dict[str, int]


class OriginCard(Section):
    """Where a model came from that was not trained here.

    file: its name. sha256: of its bytes. declared: name of the TOML that says, or could say, what the file does not.
    key: of all that this run was made from; another one, and it is made anew.
    """

    file: str
    sha256: str
    declared: str
    key: str


class ModelCard(Section):
    """parameters: trainable ones. values: with BatchNorm's statistics. weights: where its first ones came from."""

    name: str
    options: dict[str, Any]
    parameters: int
    values: int
    weights: str | None = None


class Results(Section):
    """What came out; None until it is known. Accuracies are shares from 0 to 1.

    *_one_view: without the test-time views that the recipe asks for, where it does.
    train_seconds: the epochs alone. seconds: from the command to the last prediction. test_openings: how often the
    test split has been predicted; more than once, and choices may have been made on it.
    """

    val_accuracy: float | None = None
    test_accuracy: float | None = None
    val_accuracy_one_view: float | None = None
    test_accuracy_one_view: float | None = None
    epochs: int | None = None
    train_seconds: float | None = None
    seconds: float | None = None
    test_openings: int = 0


class RunCard(Section):
    """A run card, `run.json`: what would be needed to make it again, and what came out.

    threads: of each of the `processes` that trained together. precision: that was used, where a recipe leaves it open.
    notes: what a reader of its results must know. origin: None of a model that was trained here.
    """

    status: Literal["training", "trained", "finished"] = "training"
    name: str
    created: str
    seed: int
    recipe: Recipe
    data: DataCard
    classes: tuple[str, ...]
    split: SplitCard
    preprocess: dict[str, Any]
    model: ModelCard
    results: Results = Results()
    versions: dict[str, str]
    hardware: dict[str, Any]
    threads: int
    precision: str = "float32"
    processes: int = 1
    commit: str | None
    command: str
    notes: tuple[str, ...] = ()
    origin: OriginCard | None = None

    def with_results(self, **results: float) -> RunCard:
        """A new card with more results, by the names of `Results`."""
        return self.model_copy(update={"results": Results(**{**self.results.model_dump(), **results})})

    def save(self, path: Path) -> None:
        atomic_write(path, self.model_dump_json(indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> RunCard:
        try:
            return cls.model_validate_json(path.read_bytes(), strict=False)
        except FileNotFoundError:
            what = f"{path.parent} without run.json"
            raise RunError(f"run: expected a folder that holds a run, received {what}") from None
        except ValueError as error:
            what = one_line(error)
            raise RunError(f"{path}: expected a run card, received one that does not parse: {what}") from None


def slug(text: str) -> str:
    """A name as it may stand in a file name: lower case, digits, "_" and "-", at most 60 of them."""
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-") or "images"
    if len(name) <= LONGEST_SLUG:
        return name
    # The end of a long name often tells it from its neighbors; a digest of all of it does so always.
    return f"{name[: LONGEST_SLUG - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def jsonable(value: Any) -> Any:
    """Arrays, tuples and records as what `json` writes; floats that JSON lacks (NaN, infinity) as null."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value
