"""What a class activation map is made of, on one image: a layer's output, and the gradient of a logit by it.

ONNX Runtime computes features several times as fast on one image as torch does, but knows no gradients: the layers up
to the map are its own, those after it and the gradient are torch's. Where there is no graph, all of it is torch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lucidate.core.atomic import sha256
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.explain.cam import ActivationHook, Layer, target_gradients
from lucidate.export.parity import is_close
from lucidate.models.onnx import with_outputs
from lucidate.models.onnx_session import open_session
from lucidate.predict.backends import WEIGHTS_KEY, graph_path
from lucidate.serve.engine import INPUT, Session
from lucidate.serve.logging import logger

TRIED = 2  # images of noise, on which a graph's features have to be torch's


@dataclass(frozen=True, eq=False)
class CamInputs:
    """activations and gradients: (1, C, h, w) float32. target: the class."""

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
