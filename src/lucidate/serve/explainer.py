"""Heatmaps of what is served: a run's own model under torch, in one thread, beside the engine that answers."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucidate.core.atomic import sha256
from lucidate.core.errors import ExplainError, LucidateError
from lucidate.core.run import RunDir
from lucidate.serve.errors import BadRequest, NotReady, Overloaded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lucidate.data.preprocess import Preprocess
    from lucidate.explain.heatmaps import Layers
    from lucidate.serve.features import FeatureGraph

PNG_LEVEL = 1  # of zlib: the usual 6 takes four times as long for a file a tenth smaller
LISTED = 64  # cells a side, at most, of a map that is given as numbers

_pool = ThreadPoolExecutor(1, thread_name_prefix="explain")  # of all models: heatmaps never take more than one core


@dataclass
class _Queue:
    """Images that wait for a heatmap, over all models."""

    images: int = 0


_queue = _Queue()


@dataclass(frozen=True, eq=False)
class Heatmap:
    """What spoke for a class.

    target: the class. layer: where it was taken, "" of methods that need none. values: (h, w) float32 in the layer's
    own grid, 64 × 64 at most; of class activation maps 0 or more. picture: a PNG of the image under it. trust: how far
    to believe it.
    """

    target: int
    layer: str
    values: NDArray[np.float32]
    picture: bytes
    trust: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Ready:
    model: nn.Module
    preprocess: Preprocess


class Explainer:
    """Of one served version; weights: SHA-256 of its weights' file. Loads the run's model when it is first asked."""

    def __init__(self, run: RunDir, weights: str) -> None:
        self._run = run
        self._weights = weights
        self._ready: _Ready | None = None
        self._layers: dict[str, Layers] = {}
        self._features: FeatureGraph | None = None
        self._tried = False  # to make it
        self._trust: dict[str, tuple[object, Mapping[str, Any]]] = {}

    async def heatmap(
        self, pixels: NDArray[np.uint8], target: int | None, *, method: str, side: int, queue: int
    ) -> Heatmap:
        """What speaks for class `target` in an image (S, S, 3). side: of the picture, in pixels.

        target: None for the one that this model, asked with one view, takes for the likeliest. queue: how many may
        wait, over all models.

        Raises BadRequest for a method that does not suit the model, Overloaded, NotReady where the run's folder no
        longer holds what is served.
        """
        if _queue.images >= queue:
            raise Overloaded("too many wait for a heatmap; come again later")
        _queue.images += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(_pool, self._heatmap, pixels, target, method, side)
        except ExplainError as error:
            raise BadRequest(str(error).replace("--", "")) from None
        except LucidateError:
            raise NotReady("the model's folder no longer holds what is served: no heatmap can be made of it") from None
        finally:
            _queue.images -= 1

    def _heatmap(self, pixels: NDArray[np.uint8], target: int | None, method: str, side: int) -> Heatmap:
        import torch

        from lucidate.explain.heatmaps import resized

        # The engine keeps the other cores; threads that wait for one another on busy ones take ten times as long.
        torch.set_num_threads(1)
        chosen = _known(method)
        ready = self._load()
        if chosen not in self._layers:
            self._layers[chosen] = layers_of(ready, chosen)
        layers = self._layers[chosen]
        maps, explained = self._maps(ready, pixels, target, method=chosen, layers=layers)
        scaled = resized(maps / maps.abs().max().clamp(min=1e-30), len(pixels))[0].clamp(min=0)
        return Heatmap(
            target=explained,
            layer=", ".join(dict.fromkeys(layer.name for layer in layers.values())),
            values=_listed(maps)[0].float().numpy(),
            picture=_picture(pixels, scaled.float().numpy(), side),
            trust=self._trusted(chosen),
        )

    def _maps(
        self, ready: _Ready, pixels: NDArray[np.uint8], target: int | None, *, method: str, layers: Layers
    ) -> tuple[Tensor, int]:
        """(1, h, w) and the class that it speaks for, as `explain.heatmaps` gives it."""
        import torch

        from lucidate.explain.cam import METHODS
        from lucidate.explain.heatmaps import heatmaps
        from lucidate.serve.features import cam_inputs, feature_graph

        shown = ready.preprocess.normalize(torch.from_numpy(pixels)[None])
        if method in METHODS and "" in layers:
            layer = layers[""]
            if not self._tried:
                self._tried = True
                self._features = feature_graph(self._run, ready.model, ready.preprocess, layer)
            if self._features is None:
                found = cam_inputs(ready.model, shown, layer, target=target)
            else:
                features = self._features(pixels)
                found = cam_inputs(ready.model, shown[:0], layer, target=target, features=features)
            return METHODS[method](found.activations, found.gradients), found.target
        if target is None:
            with torch.inference_mode():
                target = int(ready.model(shown).argmax())
        return heatmaps(ready.model, shown, torch.tensor([target]), method=method, layers=layers), target

    def _load(self) -> _Ready:
        from lucidate.core.records import RunCard
        from lucidate.data.preprocess import Preprocess
        from lucidate.models.checkpoint import load_model

        if self._ready is None:
            if not self._run.weights.is_file() or sha256(self._run.weights) != self._weights:
                raise LucidateError("run: its weights are no longer those that are served")
            preprocess = Preprocess.from_dict(RunCard.load(self._run.card).preprocess)
            self._ready = _Ready(load_model(self._run).requires_grad_(False), preprocess)
        return self._ready

    def _trusted(self, method: str) -> Mapping[str, Any]:
        """What `lucidate explain` has measured of a method on this model: a verdict, and its figures."""
        paths = sorted(
            self._run.explained.glob(f"{method}-*.json"), key=lambda path: "-predicted-test" not in path.name
        )
        stamp = [(path, path.stat().st_mtime_ns) for path in paths]
        if method not in self._trust or self._trust[method][0] != stamp:
            measured = [found for path in paths if (found := _measured(path, method))]
            advice = f"not measured: run lucidate explain {self._run.path.name} --method {method}"
            self._trust[method] = (stamp, measured[0] if measured else {"verdict": advice})
        return self._trust[method][1]


def _known(method: str) -> str:
    from lucidate.explain.heatmaps import METHODS

    for known in METHODS:
        if known == method:
            return known
    raise ExplainError(f"method: expected one of {', '.join(METHODS)}, received another")


def layers_of(ready: _Ready, method: str) -> Layers:
    from lucidate.explain.heatmaps import layers_for

    return layers_for(ready.model, ready.preprocess.size, method=method)


def _listed(maps: Tensor) -> Tensor:
    """Maps (1, h, w) that are fine to be sent as numbers: those of single pixels in coarser cells."""
    if max(maps.shape[1:]) <= LISTED:
        return maps
    from torch.nn import functional

    return functional.adaptive_avg_pool2d(maps, (min(LISTED, maps.shape[1]), min(LISTED, maps.shape[2])))


def _measured(path: Any, method: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("method") != method or not isinstance(found.get("trust"), dict):
        return None
    return found["trust"]


def _picture(pixels: NDArray[np.uint8], heatmap: NDArray[np.float32], side: int) -> bytes:
    """The overlay in the image's own size, then enlarged: coloring every pixel of the large one takes 17 ms."""
    from lucidate.explain.single import overlay

    image = Image.fromarray(overlay(pixels, heatmap))
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()
