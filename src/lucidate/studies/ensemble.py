"""Finished runs → an ensemble, which is a run like any other.

Answers of several models on the same images become one in four ways, of which two look at validation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lucidate.analysis.studies import EnsembleGain, ensemble_gain
from lucidate.core import machine
from lucidate.core.alignment import align, class_order, rows_of
from lucidate.core.atomic import atomic_write
from lucidate.core.errors import RunError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import ModelRecipe, Recipe
from lucidate.core.records import ModelCard, Predictions, RunCard, jsonable
from lucidate.core.registry import ENSEMBLE
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.data.splits import open_data
from lucidate.models.checkpoint import load_model, save_weights
from lucidate.models.ensemble import Averaged, Ensemble, Member
from lucidate.predict.infer import predict_run

Method = Literal["softmax", "logits", "weighted", "greedy"]
METHODS: tuple[Method, ...] = ("softmax", "logits", "weighted", "greedy")
ROUNDS = 200  # of expectation maximization: the likelihood of a handful of shares is flat to 1e-6 long before
PICKS = 20  # of greedy selection, with replacement: shares in steps of a twentieth
SPLITS = ("validation", "test")


@dataclass(frozen=True, eq=False)
class Combined:
    """How members are combined. averaged: "softmax" or "logits". shares: (M,) float64, adding up to 1."""

    method: Method
    averaged: Averaged
    shares: NDArray[np.float64]

    def logits(self, members: Sequence[Predictions]) -> NDArray[np.float32]:
        """(N, K): of aligned members. Averaged over probabilities, their softmax is the mean of the members'."""
        if self.averaged == "logits":
            return np.tensordot(self.shares, _stack([m.logits for m in members]), axes=1).astype(np.float32)
        mean = np.tensordot(self.shares, _stack([m.probabilities for m in members]), axes=1)
        return np.log(np.maximum(mean, np.finfo(np.float32).tiny)).astype(np.float32)


def combine(members: Sequence[Predictions], *, method: Method = "softmax") -> Combined:
    """Choose how to combine members, by their aligned predictions of the validation split.

    softmax: the plain mean of probabilities, the usual first choice. logits: of logits. weighted: probabilities by
    shares of the highest likelihood on validation. greedy: probabilities by forward selection with replacement, after
    R. Caruana et al., "Ensemble selection from libraries of models" (ICML 2004): the member that raises validation
    accuracy most is added (the lower loss of equals) until none does.
    """
    count = len(members)
    equal = np.full(count, 1 / count)
    if method in ("softmax", "logits"):
        return Combined(method, "logits" if method == "logits" else "softmax", equal)
    probabilities = _stack([m.probabilities for m in members])
    labels = members[0].labels
    shares = fit_shares(probabilities, labels) if method == "weighted" else select_greedily(probabilities, labels)
    return Combined(method, "softmax", shares)


def fit_shares(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares (M,) under which the mixture of members gives the labels the highest likelihood.

    probabilities: (M, N, K). The problem is concave; this is expectation maximization for a mixture whose parts are
    fixed (A. Dempster et al., JRSS B 39 (1977)).
    """
    given = probabilities[:, np.arange(len(labels)), labels]
    shares = np.full(len(given), 1 / len(given))
    for _ in range(ROUNDS):
        parts = shares[:, None] * given
        shares = (parts / np.maximum(parts.sum(0), np.finfo(np.float64).tiny)).mean(1)
        shares /= shares.sum()
    return shares


def select_greedily(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares (M,) of the members that forward selection picks, some maybe more than once. probabilities: (M, N, K)."""
    rows = np.arange(len(labels))
    picked = np.zeros(len(probabilities))
    total = np.zeros_like(probabilities[0])
    best = (-1.0, -np.inf)
    for _ in range(PICKS):
        scores = []
        for member in probabilities:
            mean = (total + member) / (picked.sum() + 1)
            likelihood = np.log(np.maximum(mean[rows, labels], np.finfo(np.float64).tiny)).mean()
            scores.append((float((mean.argmax(1) == labels).mean()), float(likelihood)))
        position = max(range(len(scores)), key=scores.__getitem__)
        if scores[position] <= best:
            break
        best = scores[position]
        picked[position] += 1
        total += probabilities[position]
    return picked / picked.sum()


def _stack(arrays: list[NDArray[np.float64]] | list[NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.stack(arrays).astype(np.float64)


def ensemble_runs(
    members: Sequence[RunDir],
    run: RunDir,
    *,
    method: Method = "softmax",
    device: torch.device | str = "cpu",
    command: str = "",
    reporter: Reporter | None = None,
) -> EnsembleGain:
    """Combine finished runs into the folder of a new one, which must have been claimed.

    Shares are chosen on validation; then the test split is opened. The folder holds all weights: it needs its members
    no more. Members may differ in preprocessing and in the order of their classes. A member whose predictions are
    missing is predicted, into its own folder.
    Raises RunError for a member that is unfinished, PredictionsError for members that do not belong together.
    """
    reporter, start = reporter or Silent(), time.perf_counter()
    cards = [RunCard.load(RunDir.open(member.path).card) for member in members]
    names = unique_names(members)
    for member in members:
        for split in SPLITS:
            if not member.predictions(split).exists():
                with member.lock():
                    predict_run(member, split, device=device, reporter=reporter)
    tables = {
        split: align([Predictions.load(member.predictions(split)) for member in members], names=names)
        for split in SPLITS
    }
    combined = combine(tables["validation"], method=method)
    reporter.say(f"shares: {', '.join(f'{n} {s:.2f}' for n, s in zip(names, combined.shares, strict=True))}")
    # The member that sees the most pixels lends its images: others shrink them.
    lender = max(range(len(cards)), key=lambda position: cards[position].data.image_size)
    card = cards[lender]
    data = open_data(members[lender], reporter=reporter)
    pack = data.pack
    specs = [
        Member(
            name=name,
            model=other.recipe.model,
            preprocess=Preprocess.from_dict(other.preprocess),
            order=tuple(class_order(cards[0].classes, other.classes).tolist()),
            views=other.recipe.predict.views,
            mirror=other.data.flips,
            share=float(share),
        )
        for name, other, share in zip(names, cards, combined.shares, strict=True)
    ]
    model = Ensemble(tuple(specs), [load_model(member) for member in members], combined.averaged)
    options = {"averaged": combined.averaged, "members": [spec.model_dump(mode="json") for spec in specs]}
    recipe = Recipe(seed=card.seed, data=card.recipe.data, model=ModelRecipe(name=ENSEMBLE, **options))
    results: dict[str, float] = {}
    gains = {}
    for split in SPLITS:
        first = tables[split][0]
        table = replace(
            first,
            index=rows_of(pack.ids, first.ids),
            logits=combined.logits(tables[split]),
            model=f"ensemble of {len(members)}",
        )
        table.save(run.predictions(split))
        gains[split] = ensemble_gain(
            table, tables[split], names=names, shares=combined.shares.tolist(), method=combined.method
        )
        results["val_accuracy" if split == "validation" else "test_accuracy"] = table.accuracy
    save_weights(model, run.weights)
    data.splits.save(run.splits, pack.ids)
    answers = {split: {"headline": gain.headline, **jsonable(gain)} for split, gain in gains.items()}
    atomic_write(run.path / "ensemble.json", json.dumps(answers, indent=1).encode())
    seconds = sum(other.results.train_seconds or 0.0 for other in cards)
    final = RunCard(
        status="finished",
        name=run.path.resolve().name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=card.seed,
        recipe=recipe,
        data=card.data,
        classes=cards[0].classes,
        split=card.split,
        preprocess=Preprocess(card.data.image_size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).as_dict(),
        model=ModelCard(
            name=ENSEMBLE,
            options={"method": combined.method, "members": list(names), "shares": combined.shares.tolist()},
            parameters=sum(other.model.parameters for other in cards),
            values=sum(other.model.values for other in cards),
        ),
        versions=machine.versions(),
        hardware=card.hardware,
        threads=torch.get_num_threads(),
        commit=machine.commit(),
        command=command,
        notes=tuple(f"{name}: {note}" for name, other in zip(names, cards, strict=True) for note in other.notes),
    )
    final.with_results(
        **results, train_seconds=round(seconds, 2), seconds=round(time.perf_counter() - start, 2), test_openings=1
    ).save(run.card)
    return gains["test"]


def unique_names(members: Sequence[RunDir]) -> tuple[str, ...]:
    """What the members are called: their folders' names, with a number where two are alike. Raises RunError."""
    paths = [member.path.resolve() for member in members]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise RunError(f"ensemble: expected two or more different runs, received {len(set(paths))}")
    names = [path.name for path in paths]
    return tuple(name if names.count(name) == 1 else f"{name}-{position}" for position, name in enumerate(names, 1))
