"""The Python interface: what the commands do, as functions on runs.

>>> import lucidate
>>> run = lucidate.train("digits", out="runs/first")  # doctest: +SKIP
>>> run.predict("test").accuracy  # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lucidate.analysis.findings import Findings, analyze_run
from lucidate.analysis.findings import analyze as find
from lucidate.analysis.studies import EnsembleGain
from lucidate.core.errors import RunError, UnknownNameError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import Recipe, load_recipe
from lucidate.core.records import History, Predictions, RunCard
from lucidate.core.registry import choices
from lucidate.core.run import RunDir, fresh_path
from lucidate.data.batches import Dataset, prepare
from lucidate.data.splits import require_name, source_of
from lucidate.export.embedder import of_run
from lucidate.external.import_model import open_run
from lucidate.models.build import default_device
from lucidate.models.checkpoint import load_model
from lucidate.predict.embed import Embeddings, embed_source
from lucidate.predict.infer import predict_run
from lucidate.predict.new_data import Answer, predict_files, predict_source
from lucidate.report.figures.catalog import FIGURES
from lucidate.report.pdf.document import report_of_run
from lucidate.report.site.gallery import gallery_of_run
from lucidate.studies.ensemble import Method, ensemble_runs
from lucidate.studies.levels import LevelsResult, run_levels
from lucidate.training.job import finish_job, prepare_run, train_job
from lucidate.training.trainer import TrainJob

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Run:
    """A finished training, by its folder. Nothing is read before it is asked for."""

    path: Path

    @property
    def folder(self) -> RunDir:
        return RunDir(self.path)

    @property
    def card(self) -> RunCard:
        """The run card: recipe, data, split, versions, results."""
        return RunCard.load(self.folder.card)

    @property
    def history(self) -> History:
        """Training as Keras writes it. Raises RunError for an ensemble, which has none."""
        return History.load(self.folder.history)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.card.classes

    def predict(self, split: str = "test") -> Predictions:
        """Its own images of a split, predicted once and kept. The test split is opened here: choose before."""
        require_name(split)
        path = self.folder.predictions(split)
        if path.exists():
            return Predictions.load(path)
        with self.folder.lock():
            return predict_run(self.folder, split, device=default_device())

    def predict_source(self, source: str, *, split: str = "test") -> Predictions:
        """Another source's images: those it gives to `split`, or all where it gives none to it."""
        return predict_source(self.folder, source, split=split, device=default_device())

    def embed(self, source: str | None = None) -> Embeddings:
        """What the last layer sees of every image of a source (default: its own), computed once and kept."""
        with self.folder.lock():
            file = embed_source(of_run(self.folder, device=default_device), source or source_of(self.card))
        return Embeddings.load(file.path)

    def name(self, *paths: str | Path, top: int = 3) -> list[Answer]:
        """The likeliest classes of image files."""
        return predict_files(self.folder, [Path(path) for path in paths], top=top, device=default_device())

    def model(self) -> nn.Module:
        """The trained network, in evaluation mode; it takes normalized images (see card.preprocess)."""
        return load_model(self.folder)

    def figure(self, question: str, *, split: str = "test", interactive: bool = False) -> Any:
        """One figure of the gallery, by the field of Findings that it draws, such as "confusion_matrix".

        A Matplotlib figure; interactive: a Plotly one. Raises UnknownNameError for a question that no figure draws.
        """
        known = {entry.question: entry for entry in FIGURES}
        if question not in known:
            raise UnknownNameError(f"figure: expected {choices(question, list(known))}, received {question!r}")
        self.predict(split)
        analysis = analyze_run(self.folder, split=split)
        entry, info = known[question], known[question].info(analysis.findings)
        if info is None:
            raise RunError(f"figure: expected a run with a training history for {question}, received {self.path}")
        sprite = entry.sprite(info, analysis.pack.images)
        return entry.interactive(info, sprite) if interactive else entry.static(info, sprite)

    def gallery(self) -> Path:
        """Write the gallery of the test split; returns its first page."""
        self.predict("test")
        return gallery_of_run(self.folder)

    def report(self, *, images: bool = True) -> Path:
        """Write report.pdf about the test split. images: whether it shows any, which may not be for everyone to see."""
        self.predict("test")
        return report_of_run(self.folder, images=images)


def load(path: str | Path) -> Run:
    """A run from its folder, or a model from elsewhere from its file (see `lucidate.external.import_model`).

    Raises RunError where there is none, or its training did not end; LucidateError for a file that cannot be used.
    """
    return Run(open_run(Path(path)).path)


def dataset(source: str, *, split: str = "official", seed: int = 0) -> Dataset:
    """A source's images, packed and divided as a training would: `.pack.images` (N, S, S, 3) uint8, `.splits`."""
    return prepare(load_recipe("compact", source=source, overrides=_overrides({"data.split": split, "seed": seed})))


def train(
    recipe: str | Path | Recipe,
    *,
    data: str | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Train by a recipe (its name, file or record) into a folder; validation is predicted, the test split stays sealed.

    data: in place of the recipe's source. settings: on top of it, such as {"train.epochs": 3}. out: default
    runs/NAME. Raises LucidateError for whatever the caller can mend.
    """
    reporter = reporter or Silent()
    overrides = _overrides(settings or {})
    job = prepare_run(recipe, data=data, out=out, overrides=overrides, resume=resume, reporter=reporter)
    with job.claim(resume=resume):
        train_job(job, reporter=reporter)
    return Run(job.run.path)


def write_up(job: TrainJob, *, reporter: Reporter, since: float) -> tuple[RunCard, Path, Path]:
    """Open the test split of a trained run, and write its gallery and report: the run card, and where these are.

    The folder must be claimed. since: what `time.perf_counter` gave when the run began.
    """
    card = finish_job(job, reporter=reporter, since=since)
    index = gallery_of_run(job.run, pack=job.dataset.pack, reporter=reporter)
    return card, index, report_of_run(job.run, pack=job.dataset.pack, reporter=reporter)


def analyze(subject: Run | Predictions, *, split: str = "test") -> Findings:
    """Every question about a run's split, or about a table of predictions."""
    if isinstance(subject, Predictions):
        return find(subject)
    subject.predict(split)
    return analyze_run(subject.folder, split=split).findings


def gallery(run: Run) -> Path:
    """Write a run's gallery; returns its first page."""
    return run.gallery()


def ensemble(
    members: Sequence[Run], *, out: str | Path | None = None, combine: Method = "softmax"
) -> tuple[Run, EnsembleGain]:
    """Combine runs into one; returns it, and what it brings over its members on the test split."""
    run = RunDir(Path(out) if out else fresh_path(Path("runs"), "ensemble"))
    with run.claim():
        gain = ensemble_runs([member.folder for member in members], run, method=combine, device=default_device())
    return Run(run.path), gain


def levels(
    data: str,
    *,
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    images: bool = True,
    reporter: Reporter | None = None,
) -> LevelsResult:
    """Take a data set through the levels of the challenge; what an earlier call has finished is not repeated.

    settings: such as {"levels.minutes": 30}, a budget. images: whether the report shows any.
    """
    return run_levels(
        data,
        Path(out),
        overrides=_overrides(settings or {}),
        device=default_device(),
        images=images,
        reporter=reporter or Silent(),
    )


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as `--set` takes them: JSON's scalars and lists are TOML's."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
