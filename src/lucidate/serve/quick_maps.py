"""What a class activation map is made of, by ONNX Runtime: a layer's output, and the gradient by it.

A graph is used where it has proved, on images of noise, to give what torch gives; where there is none, torch it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import nn

from lucidate.core.run import RunDir, sha256
from lucidate.data.preprocess import Preprocess
from lucidate.explain.cam import target_gradients
from lucidate.explain.layers import ActivationHook, Layer
from lucidate.models.onnx_session import open_session
from lucidate.serve.engine import INPUT, Session
from lucidate.serve.gradients import ASKED, GRADIENT, TARGET, Unsupported, with_gradient
from lucidate.serve.graph import MADE_OF
from lucidate.serve.logging import logger

PROOFS = 2  # images of noise
CLOSE = 1e-2  # of the largest value: two runtimes sum in another order


@dataclass(frozen=True, eq=False)
class Parts:
    """activations and gradients: (1, C, h, w) float32. asked: the class."""

    activations: torch.Tensor
    gradients: torch.Tensor
    asked: int


@dataclass(frozen=True, eq=False)
class QuickMaps:
    """tensor: of the graph, which is the layer's output times `scale` plus `offset`, (1, C, 1, 1) each: an export may
    have drawn a normalization into it.
    """

    session: Session
    tensor: str
    scale: torch.Tensor
    offset: torch.Tensor

    def __call__(self, pixels: NDArray[np.uint8], target: int | None) -> Parts:
        """Of an image (S, S, 3). target: the class; None: the likeliest one."""
        feed = {INPUT: pixels[None], TARGET: np.array([-1 if target is None else target])}
        found, gradient, asked = self.session.run((self.tensor, GRADIENT, ASKED), feed)
        activations = (torch.from_numpy(found) - self.offset) / self.scale
        return Parts(activations, torch.from_numpy(gradient) * self.scale, int(asked[0]))


def slow_parts(model: nn.Module, shown: torch.Tensor, layer: Layer, target: int | None) -> Parts:
    """The same by torch, of a normalized image (1, 3, S, S). The model must be in evaluation mode, its weights without
    gradients: those of a model that is ours alone need not be noted and put back.
    """
    tap = ActivationHook(gradients=True)
    handle = model.get_submodule(layer.name).register_forward_hook(tap)
    try:
        with torch.enable_grad():
            logits = model(shown)
    finally:
        handle.remove()
    assert tap.output is not None
    asked = int(logits.detach().argmax()) if target is None else target
    gradients = target_gradients(logits, tap.output, torch.tensor([asked]), None)
    return Parts(layer.as_map(tap.output.detach()).float(), layer.as_map(gradients).float(), asked)


def quick_maps(run: RunDir, model: nn.Module, preprocess: Preprocess, layer: Layer) -> QuickMaps | None:
    """From a graph of the run, asked with one view; None where there is none, or no gradient can be made of it."""
    wanted = {MADE_OF: sha256(run.weights), "views": "one"}
    for name in ("serve.onnx", "model.onnx"):
        path = run.exports / name
        if layer.tokens or not path.is_file():
            continue
        try:
            graph = onnx.load_model_from_string(path.read_bytes())
            if wanted.items() <= {one.key: one.value for one in graph.metadata_props}.items():
                return _proven(graph, model, preprocess, layer)
        except Unsupported:
            continue
        except Exception:  # protobuf's, ONNX Runtime's: the slow way remains
            logger.warning("no quick heatmaps by %s", path, exc_info=True)
    return None


def _proven(graph: onnx.ModelProto, model: nn.Module, preprocess: Preprocess, layer: Layer) -> QuickMaps | None:
    noise = np.random.default_rng(0).integers(0, 256, (PROOFS, preprocess.size, preprocess.size, 3), dtype=np.uint8)
    true = [slow_parts(model, preprocess.normalize(torch.from_numpy(one)[None]), layer, None) for one in noise]
    inner = _all_tensors(graph, noise)
    at, scale, offset = _found(inner, torch.cat([one.activations for one in true]))
    made = with_gradient(graph, at=at, shapes={name: value.shape for name, value in inner[0].items()})
    session = open_session(made.SerializeToString(), threads=1)
    maps = QuickMaps(session, at, scale, offset)
    for pixels, known in zip(noise, true, strict=True):
        found = maps(pixels, known.asked)
        for mine, theirs in ((found.activations, known.activations), (found.gradients, known.gradients)):
            if not torch.allclose(mine, theirs, rtol=0, atol=CLOSE * float(theirs.abs().max())):
                return None
    return maps


def _all_tensors(graph: onnx.ModelProto, images: NDArray[np.uint8]) -> list[dict[str, NDArray[np.float32]]]:
    """Every tensor that a graph computes, of each image."""
    whole = onnx.ModelProto()
    whole.CopyFrom(graph)
    names = [name for node in graph.graph.node if node.op_type != "Constant" for name in node.output if name]
    del whole.graph.output[:]
    whole.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = open_session(whole.SerializeToString(), threads=1)
    return [dict(zip(names, session.run(names, {INPUT: one[None]}), strict=True)) for one in images]


def _found(inner: list[dict[str, NDArray[np.float32]]], wanted: torch.Tensor) -> tuple[str, torch.Tensor, torch.Tensor]:
    """The first tensor that is the layer's output, or is but for a factor and an offset of each channel; and these.

    Raises Unsupported.
    """
    true = wanted.double().transpose(0, 1).flatten(1)
    for name in inner[0]:
        if inner[0][name].shape != (1, *wanted.shape[1:]) or inner[0][name].dtype != np.float32:
            continue
        value = torch.from_numpy(np.concatenate([one[name] for one in inner]))
        mine = value.double().transpose(0, 1).flatten(1)
        spread = true - true.mean(1, keepdim=True)
        power = (spread**2).sum(1)
        slope = torch.where(power > 0, (spread * mine).sum(1) / power.clamp(min=1e-30), 1.0)
        offset = mine.mean(1) - slope * true.mean(1)
        rest = (mine - slope[:, None] * true - offset[:, None]).abs().max()
        if rest <= 1e-3 * mine.abs().max() and bool((slope.abs() > 1e-6).all()):
            exact = bool((mine - true).abs().max() <= 1e-3 * true.abs().max())
            ones = torch.ones_like(slope)
            parts = (ones, 0 * ones) if exact else (slope, offset)
            first, second = (part.float()[None, :, None, None] for part in parts)
            return name, first, second
    raise Unsupported("no tensor of the graph is the layer's output")
