"""Which model embeds images, and by what: torch or ONNX Runtime, whichever is quicker here.

In float32: bfloat16, which a network is trained in, is too coarse for embeddings. fastnet's whitened first layer alone
moves them by half of their size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lucidate.core.atomic import sha256
from lucidate.core.errors import RunError
from lucidate.core.records import RunCard
from lucidate.core.registry import TIMM
from lucidate.core.run import RunDir
from lucidate.data.download import cache_dir
from lucidate.models.pretrained import download, packaged
from lucidate.predict.embed import Backend, Embedder

if TYPE_CHECKING:
    import torch  # takes a second, which embeddings that are there already need not wait

    from lucidate.models.predictor import TorchPredictor

PHOTOS = 224  # pixels a side that most networks were trained at
TURNS = 3  # of a batch, by each; the best counts, since other work only ever slows one down


def of_run(run: RunDir, *, device: Callable[[], torch.device]) -> Embedder:
    """A run's network, on a device that is asked for where torch is loaded. Raises RunError for a run without weights
    of its own."""
    card = RunCard.load(run.card)
    if not run.weights.exists():
        raise RunError(f"{run.path}: expected a run with weights, such as embeddings need, received one without")

    def load(images: NDArray[np.uint8]) -> Backend:
        from lucidate.models.checkpoint import load_predictor

        return quickest(load_predictor(run, views="one", device=device()), images)

    return Embedder(
        model=card.model.name,
        key={"weights": sha256(run.weights), "preprocess": card.preprocess, "options": card.model.options},
        size=card.data.image_size,
        load=load,
        kept=lambda key: run.predictions(f"embeddings-{key}"),
    )


def of_pretrained(name: str, *, size: int | None = None, device: Callable[[], torch.device]) -> Embedder:
    """A timm model by its name, "timm:NAME", with the weights that it comes with. size: side in pixels, else its own.

    device: asked where torch is loaded.
    Raises UnknownNameError, WeightsError.
    """
    short = name.removeprefix(TIMM)
    weights = packaged(short)
    if weights is None:  # the hub's files are found through timm, which takes seconds to load
        from lucidate.models.timm import require_name

        require_name(short)
        weights = download(short)

    def load(images: NDArray[np.uint8]) -> Backend:
        import torch

        from lucidate.core.recipe import ModelRecipe
        from lucidate.data.preprocess import Preprocess
        from lucidate.models.build import build, preprocess_for, to_device
        from lucidate.models.predictor import InferenceConfig, TorchPredictor

        side = images.shape[1]
        options: dict[str, Any] = {"pretrained": True, "fit": "upsample"} | ({"size": size} if size else {})
        recipe = ModelRecipe.model_validate({"name": name, **options})
        own = preprocess_for(recipe, Preprocess(side, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
        with torch.random.fork_rng(devices=[]):  # the head is not asked: leave no trace of drawing it
            net = to_device(build(recipe, 2, image_size=side), where := device())
        return quickest(TorchPredictor(net, InferenceConfig(own), device=where), images)

    return Embedder(
        model=name,
        key={"weights": sha256(weights.path), "name": name, "size": size},
        size=None,
        load=load,
        kept=lambda key: cache_dir() / "embeddings" / f"{key}.parquet",
        photos=size or PHOTOS,
    )


def quickest(predictor: TorchPredictor, images: NDArray[np.uint8]) -> Backend:
    """Whichever embeds some images (B, S, S, 3) soonest. Raises RunError for a model without embeddings."""
    from lucidate.export.onnx import embedding_graph
    from lucidate.export.parity import call_times

    predictor.embed(images[:1])  # a model that has none says so here
    predictor = predictor.folded()
    choices = [Backend("torch", predictor.embed)]
    if predictor.device.type != "cpu":
        return replace(choices[0], batch_size=predictor.batch_size)
    if graph := embedding_graph(predictor, images[:4]):
        choices.append(Backend("ONNX Runtime", graph))
    asked = {backend.name: backend.embed for backend in choices}
    times = call_times(asked, images[: choices[0].batch_size], seconds=0, most=TURNS)
    return min(choices, key=lambda backend: min(times[backend.name]))
