"""Heatmaps of what is served: a run's own model under torch, in one thread, beside the engine that answers.

ONNX Runtime computes features several times as fast on one image as torch does, but knows no gradients: of a class
activation map, the layers up to the map are its own, those after it and the gradient are torch's. Where there is no
graph, all of it is torch's.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.atomic import sha256
from lucidate.core.errors import ExplainError, LucidateError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.explain.cam import METHODS as CAMS
from lucidate.explain.cam import ActivationHook, Layer, target_gradients
from lucidate.explain.heatmaps import METHODS, Layers, heatmaps, layers_for, resized
from lucidate.explain.single import overlay
from lucidate.export.parity import is_close
from lucidate.models.checkpoint import load_model
from lucidate.models.onnx import with_outputs
from lucidate.models.onnx_session import open_session
from lucidate.predict.backends import WEIGHTS_KEY, graph_path
from lucidate.serve.engine import INPUT, Session

PNG_LEVEL = 1  # of zlib: the usual 6 takes four times as long for a file a tenth smaller
LISTED = 64  # cells a side, at most, of a map that is given as numbers
TRIED = 2  # images of noise, on which a graph's features have to be torch's


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


class Explainer:
    """Of one served version; weights: SHA-256 of its weights' file. Loads the run's model when it is first asked."""

    def __init__(self, run: RunDir, weights: str) -> None:
        self._run = run
        self._weights = weights
        self._layers: dict[str, Layers] = {}

    def heatmap(self, pixels: NDArray[np.uint8], target: int | None, *, method: str, side: int) -> Heatmap:
        """What speaks for class `target` in an image (S, S, 3). side: of the picture, in pixels. For one thread.

        target: None for the one that this model, asked with one view, takes for the likeliest.

        Raises ExplainError for a method that does not suit the model, LucidateError where the run's folder no longer
        holds what is served.
        """
        # The engine keeps the other cores; threads that wait for one another on busy ones take ten times as long.
        torch.set_num_threads(1)
        if method not in METHODS:
            raise ExplainError(f"method: expected one of {', '.join(METHODS)}, received another")
        if method not in self._layers:
            self._layers[method] = layers_for(self._model, self._preprocess.size, method=method)
        layers = self._layers[method]
        maps, explained = self._maps(pixels, target, method=method, layers=layers)
        scaled = resized(maps / maps.abs().max().clamp(min=1e-30), len(pixels))[0].clamp(min=0)
        if max(maps.shape[1:]) > LISTED:  # single pixels are sent in coarser cells
            maps = functional.adaptive_avg_pool2d(maps, (min(LISTED, maps.shape[1]), min(LISTED, maps.shape[2])))
        return Heatmap(
            target=explained,
            layer=", ".join(dict.fromkeys(layer.name for layer in layers.values())),
            values=maps[0].float().numpy(),
            picture=_picture(pixels, scaled.float().numpy(), side),
            trust=self._trusted(method),
        )

    def _maps(
        self, pixels: NDArray[np.uint8], target: int | None, *, method: str, layers: Layers
    ) -> tuple[Tensor, int]:
        """(1, h, w) and the class that it speaks for, as `explain.heatmaps` gives it."""
        model, shown = self._model, self._preprocess.normalize(torch.from_numpy(pixels)[None])
        if method in CAMS and "" in layers:
            if self._features is None:
                found = cam_inputs(model, shown, layers[""], target=target)
            else:
                found = cam_inputs(model, shown[:0], layers[""], target=target, features=self._features(pixels))
            return CAMS[method](found.activations, found.gradients), found.target
        if target is None:
            with torch.inference_mode():
                target = int(model(shown).argmax())
        return heatmaps(model, shown, torch.tensor([target]), method=method, layers=layers), target

    @cached_property
    def _preprocess(self) -> Preprocess:
        return Preprocess.from_dict(RunCard.load(self._run.card).preprocess)

    @cached_property
    def _model(self) -> nn.Module:
        if not self._run.weights.is_file() or sha256(self._run.weights) != self._weights:
            raise LucidateError("run: its weights are no longer those that are served")
        return load_model(self._run).requires_grad_(False)

    @cached_property
    def _features(self) -> FeatureGraph | None:
        layer = layers_for(self._model, self._preprocess.size, method="gradcam")[""]  # the same for all of CAMS
        return feature_graph(self._run, self._model, self._preprocess, layer)

    def _trusted(self, method: str) -> Mapping[str, Any]:
        """What `lucidate explain` has measured of a method on this model: a verdict, and its figures."""
        paths = self._run.explained.glob(f"{method}-*.json")
        for path in sorted(paths, key=lambda path: "-predicted-test" not in path.name):
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(found, dict) and found.get("method") == method and isinstance(found.get("trust"), dict):
                return found["trust"]
        return {"verdict": f"not measured: run lucidate explain {self._run.path.name} --method {method}"}


def _picture(pixels: NDArray[np.uint8], heatmap: NDArray[np.float32], side: int) -> bytes:
    """The overlay in the image's own size, then enlarged: coloring every pixel of the large one takes 17 ms."""
    image = Image.fromarray(overlay(pixels, heatmap))
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()


# What a class activation map is made of


@dataclass(frozen=True, eq=False)
class CamInputs:
    """(1, C, h, w) float32: a layer's output, and the gradient of a logit by it. target: the class."""

    activations: Tensor
    gradients: Tensor
    target: int


def cam_inputs(
    model: nn.Module, images: Tensor, layer: Layer, *, target: int | None = None, features: Tensor | None = None
) -> CamInputs:
    """Of a normalized image (1, 3, S, S). target: the class; None: the likeliest one.

    features: the layer's output, where it is known. Then `images` may be an empty batch: the layers before the map
    compute nothing, and those after it go on with the features. The model must be in evaluation mode, its weights
    without gradients.
    """
    kept = ActivationHook(gradients=True)

    def output(module: nn.Module, inputs: tuple[Tensor, ...], computed: Tensor) -> Tensor:
        return kept(module, inputs, computed if features is None else features)

    handle = model.get_submodule(layer.name).register_forward_hook(output)
    try:
        with torch.enable_grad():
            logits = model(images)
    finally:
        handle.remove()
    assert kept.output is not None
    chosen = int(logits.detach()[0].argmax()) if target is None else target
    gradients = target_gradients(logits, kept.output, torch.tensor([chosen]), None)
    return CamInputs(layer.as_map(kept.output.detach()).float(), layer.as_map(gradients).float(), chosen)


@dataclass(frozen=True, eq=False)
class FeatureGraph:
    """The graph that a run is served by, as far as a tensor that times `scale` plus `offset` is a layer's output.

    scale, offset: (1, C, 1, 1); not 1 and 0 where an export has drawn a normalization into the layer.
    """

    session: Session
    name: str
    scale: Tensor
    offset: Tensor

    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(1, C, h, w) float32, of an image (S, S, 3)."""
        return torch.from_numpy(self.session.run((self.name,), {INPUT: pixels[None]})[0]) * self.scale + self.offset


def feature_graph(run: RunDir, model: nn.Module, preprocess: Preprocess, layer: Layer) -> FeatureGraph | None:
    """From a graph of the run, asked with one view; None where there is none that gives what torch gives."""
    wanted = {WEIGHTS_KEY: sha256(run.weights), "views": "one"}
    for path in (graph_path(run, "served"), graph_path(run, "onnx")):
        if layer.tokens or not path.is_file():
            continue
        try:
            graph = onnx.load_model_from_string(path.read_bytes())
            if wanted.items() <= {one.key: one.value for one in graph.metadata_props}.items():
                return _proven(graph, model, preprocess, layer)
        except Exception:  # protobuf's, ONNX Runtime's, a model's that takes no empty batch: torch alone remains
            logger = logging.getLogger("lucidate.serve")
            logger.warning("heatmaps by torch alone: not by %s", path, exc_info=True)
    return None


def _proven(graph: onnx.ModelProto, model: nn.Module, preprocess: Preprocess, layer: Layer) -> FeatureGraph | None:
    """The tensor that is the layer's output is known by its values: exporters choose names of their own."""
    noise = np.random.default_rng(0).integers(0, 256, (TRIED, preprocess.size, preprocess.size, 3), dtype=np.uint8)
    shown = [preprocess.normalize(torch.from_numpy(one)[None]) for one in noise]
    expected = [cam_inputs(model, image, layer) for image in shown]
    names = [name for node in graph.graph.node if node.op_type != "Constant" for name in node.output if name]
    every = open_session(with_outputs(graph, names), threads=1)
    tensors = [dict(zip(names, every.run(names, {INPUT: one[None]}), strict=True)) for one in noise]
    activations = torch.cat([one.activations for one in expected])
    fits = ((name, _fit([each[name] for each in tensors], activations)) for name in names)
    name, fit = next((found for found in fits if found[1] is not None), (None, None))
    if name is None or fit is None:
        return None
    part = onnx.utils.Extractor(onnx.load_model_from_string(with_outputs(graph, [name]))).extract_model([INPUT], [name])
    features = FeatureGraph(open_session(part.SerializeToString(), threads=1), name, *fit)
    for pixels, image, known in zip(noise, shown, expected, strict=True):
        mine = cam_inputs(model, image[:0], layer, target=known.target, features=features(pixels))
        if not is_close(mine.gradients.numpy(), known.gradients.numpy()):  # a path around the layer is not in them
            return None
    return features


def _fit(values: list[NDArray[Any]], expected: Tensor) -> tuple[Tensor, Tensor] | None:
    """By channel, the factor and offset that make a tensor's values the expected ones; None where there are none."""
    if values[0].shape != (1, *expected.shape[1:]) or values[0].dtype != np.float32:
        return None
    known = torch.from_numpy(np.concatenate(values))
    if is_close(known.numpy(), expected.numpy()):
        return torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    variance, mean = torch.var_mean(known, (0, 2, 3), keepdim=True, correction=0)
    if not (variance > 0).all():  # a channel that is silent on noise may speak on other images
        return None
    scale = ((known - mean) * expected).mean((0, 2, 3), keepdim=True) / variance
    offset = expected.mean((0, 2, 3), keepdim=True) - scale * mean
    return (scale, offset) if is_close((known * scale + offset).numpy(), expected.numpy()) else None
