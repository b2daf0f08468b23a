"""Runs whose weights are random but whose answers differ from image to image: BatchNorm has seen some."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lucidate.core.recipe import DataRecipe, ModelRecipe, PredictRecipe, Recipe
from lucidate.core.records import DataCard, ModelCard, RunCard, SplitCard
from lucidate.core.run import RunDir
from lucidate.data.pack import open_pack
from lucidate.data.preprocess import Preprocess
from lucidate.data.splits import make_splits
from lucidate.models.build import build
from lucidate.models.checkpoint import load_model, save_weights
from lucidate.models.ensemble import Averaged, Ensemble, Member
from lucidate.models.predictor import Views

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
NO_PACK = "0" * 64


def random_run(
    path: Path,
    model: ModelRecipe,
    *,
    views: Views = "one",
    size: int = 32,
    classes: int = 10,
    seed: int = 0,
    preprocess: Preprocess | None = None,
) -> RunDir:
    """A finished run of images that are nowhere to be found."""
    data = DataCard(
        source=str(path / "images"),
        path=None,
        dataset="fake",
        pack=NO_PACK,
        images=10,
        image_size=size,
        flips=True,
        set_aside=(),
    )
    names = tuple(f"class {number}" for number in range(classes))
    preprocess = preprocess or Preprocess(size, MEAN, STD)
    return _written(path, Recipe(model=model, predict=PredictRecipe(views=views)), data, names, preprocess, seed)


def digits_run(path: Path, model: ModelRecipe, *, views: Views = "one") -> RunDir:
    """A finished run of the embedded digits, with its split."""
    pack = open_pack("digits")
    data = DataCard(
        source="digits",
        path=None,
        dataset=pack.dataset,
        pack=pack.hash,
        images=len(pack),
        image_size=pack.image_size,
        flips=pack.flips,
        set_aside=(),
    )
    recipe = Recipe(data=DataRecipe(source="digits"), model=model, predict=PredictRecipe(views=views))
    run = _written(path, recipe, data, pack.class_names, Preprocess(pack.image_size, MEAN, STD), 0)
    splits = make_splits(pack.labels, pack.given, scheme="official", val_fraction=0.1, seed=recipe.seed)
    splits.save(run.splits, pack.ids)
    return run


def ensemble_run(path: Path, *, averaged: Averaged = "softmax") -> RunDir:
    """Three members: with views, with another order of classes, and of another size; the last one without a share."""
    runs = [
        random_run(path / "a", ModelRecipe(name="compact", widths=[8], dropout=[0.0], dense=16), views="mirror"),
        random_run(path / "b", ModelRecipe(name="fastnet", widths=[8, 16]), views="mirror-shift", seed=1),
        random_run(path / "c", ModelRecipe(name="compact", widths=[8], dropout=[0.0], dense=16), size=20, seed=2),
        random_run(path / "d", ModelRecipe(name="compact", widths=[8], dropout=[0.0], dense=16), seed=3),
    ]
    cards = [RunCard.load(run.card) for run in runs]
    orders = (range(10), (3, 1, 2, 0, 9, 8, 7, 6, 5, 4), range(10), range(10))
    members = tuple(
        Member(
            name=card.name,
            model=card.recipe.model,
            preprocess=Preprocess.from_dict(card.preprocess),
            order=tuple(order),
            views=card.recipe.predict.views,
            mirror=True,
            share=share,
        )
        for card, order, share in zip(cards, orders, (0.5, 0.3, 0.2, 0.0), strict=True)
    )
    options = {"averaged": averaged, "members": [member.model_dump(mode="json") for member in members]}
    raw = Preprocess(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    run = random_run(path, ModelRecipe(name="ensemble", **options), preprocess=raw)
    save_weights(Ensemble(members, [load_model(one) for one in runs], averaged), run.weights)
    return run


def _written(
    path: Path, recipe: Recipe, data: DataCard, names: tuple[str, ...], preprocess: Preprocess, seed: int
) -> RunDir:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build(recipe.model, len(names), image_size=data.image_size, initial=False).train()
        norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
            norm.bias.normal_(0, 0.2)
        if norms:
            model(torch.rand(64, 3, data.image_size, data.image_size) * 4 - 2)
    path.mkdir(parents=True, exist_ok=True)
    run = RunDir(path)
    save_weights(model, run.weights)
    RunCard(
        status="finished",
        name=path.name,
        created="2026-01-01T00:00:00+00:00",
        seed=0,
        recipe=recipe,
        data=data,
        classes=names,
        split=SplitCard(scheme="official", requested="official", sizes={"test": 10}),
        preprocess=preprocess.as_dict(),
        model=ModelCard(name=recipe.model.name, options={}, parameters=1, values=1),
        versions={},
        hardware={},
        threads=1,
        commit=None,
        command="",
        notes=("random",),
    ).save(run.card)
    return run
