"""What runs an ONNX graph as a module: ONNX Runtime, forward only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lucidate.core.text import one_line
from lucidate.models.external_engine import Layout, Outputs, Refused
from lucidate.models.onnx_file import Graph, describe, parse, require_whole, with_outputs
from lucidate.models.onnx_session import Unanswered, open_session, rehearse, run_in_parts


class OnnxEngine:
    """An `engine.Engine` for a graph given as bytes. It computes on the processor, wherever images lie.

    Feature maps become outputs of the graph while somebody looks at them.
    """

    differentiable = False

    def __init__(self, content: bytes, *, layout: Layout, outputs: Outputs) -> None:
        self._model = parse(content)
        require_whole(self._model)
        self.graph: Graph = describe(self._model, outputs=outputs)
        self.layout = layout
        self.layers = self.graph.maps
        self.softmaxed = self.graph.before_softmax is not None
        self.parameters, self.values = self.graph.parameters, self.graph.values
        self._sessions: dict[tuple[str, ...], Any] = {}

    def __call__(self, images: Tensor, through: Mapping[str, nn.Module]) -> Tensor:
        answers, *maps = self._run(self._input(images), tuple(through))
        for stand, seen in zip(through.values(), maps, strict=True):
            stand(torch.from_numpy(seen).to(images.device))
        return torch.from_numpy(answers).to(images.device)

    def rehearse(self, images: Tensor) -> Tensor:
        feed = self._input(images)
        try:
            answers = rehearse(self._content(()), feed, input=self.graph.input, length=self.graph.shape[0])
        except Unanswered as error:
            raise Refused(f"model: expected a graph that answers, received one that does not: {error}") from None
        return torch.from_numpy(answers).to(images.device)

    def scramble(self, images: Tensor, generator: torch.Generator) -> None:  # noqa: ARG002
        """As in `Engine`; statistics of BatchNormalization stay, a graph being in one piece."""
        for tensor in self._model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
                values = onnx.numpy_helper.to_array(tensor)
                noise = torch.randn(values.shape, generator=generator).numpy() * values.std()
                tensor.CopyFrom(onnx.numpy_helper.from_array(noise.astype(np.float32), tensor.name))
        self._sessions.clear()

    def _input(self, images: Tensor) -> NDArray[Any]:
        """A normalized batch as the graph takes it. Raw pixels are whole numbers again."""
        images = images.detach().cpu()
        self._require_size(images.shape[-1])
        if self.layout == "NHWC":
            images = images.permute(0, 2, 3, 1)
        if self.graph.pixels == "uint8":
            images = images.round().clamp(0, 255)
        return np.ascontiguousarray(images.numpy()).astype(self.graph.pixels, copy=False)

    def _require_size(self, side: int) -> None:
        fixed = self.graph.shape[1:3] if self.layout == "NHWC" else self.graph.shape[2:4]
        if any(one not in (None, side) for one in fixed):
            raise Refused(f"model: expected images of {fixed[0]}×{fixed[1]} pixels, received {side}×{side}")

    def _run(self, images: NDArray[Any], maps: tuple[str, ...]) -> list[NDArray[np.float32]]:
        """Answers (B, K), then the maps."""
        session = self._session(maps)
        try:
            return run_in_parts(session, images, input=self.graph.input, length=self.graph.shape[0])
        except Exception as error:  # the runtime's exceptions have no common base but this one
            reason = one_line(error)
            raise Refused(f"model: expected a graph that can answer, received one that cannot: {reason}") from None

    def _session(self, maps: tuple[str, ...]) -> Any:
        """A session that gives the answer and some maps; of those with maps, the last one is kept."""
        if maps not in self._sessions:
            self._sessions = {key: session for key, session in self._sessions.items() if not key}
            self._sessions[maps] = open_session(self._content(maps))
        return self._sessions[maps]

    def _content(self, maps: tuple[str, ...]) -> bytes:
        """The graph whose outputs are the answer and some maps."""
        return with_outputs(self._model, (self.graph.before_softmax or self.graph.output, *maps))
