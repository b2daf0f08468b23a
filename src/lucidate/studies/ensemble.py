"""Finished runs → an ensemble, which is a run like any other."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import torch

from lucidate.core import machine
from lucidate.core.alignment import align
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
from lucidate.models.ensemble import Ensemble, Member
from lucidate.predict.infer import predict_run
from lucidate.studies.combine import Method, combine
from lucidate.studies.gain import EnsembleGain, ensemble_gain

SPLITS = ("validation", "test")


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
    row_of = {name: row for row, name in enumerate(pack.ids.tolist())}
    specs = [
        Member(
            name=name,
            model=other.recipe.model,
            preprocess=Preprocess.from_dict(other.preprocess),
            order=tuple(other.classes.index(label) for label in cards[0].classes),
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
            index=np.array([row_of[name] for name in first.ids.tolist()], dtype=np.int64),
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
        **results,
        train_seconds=round(seconds, 2),
        seconds=round(time.perf_counter() - start, 2),
        test_openings=1,
    ).save(run.card)
    return gains["test"]


def unique_names(members: Sequence[RunDir]) -> tuple[str, ...]:
    """What the members are called: their folders' names, with a number where two are alike. Raises RunError."""
    paths = [member.path.resolve() for member in members]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise RunError(f"ensemble: expected two or more different runs, received {len(set(paths))}")
    names = [path.name for path in paths]
    return tuple(name if names.count(name) == 1 else f"{name}-{position}" for position, name in enumerate(names, 1))
