"""Models in somebody else's format: ONNX graphs and Keras files, as modules that a run's folder can hold.

Their state is the bytes of the file they came in, so that `weights.safetensors` and ensembles carry them like any other
weights. What reads and runs those bytes is an engine, a file each: `onnx_engine`, `keras_engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lucidate.core.errors import RecipeError
from lucidate.core.registry import ONNX
from lucidate.models.external_engine import Engine, Options, Refused

TINY = 1e-38  # probabilities of 0 become this before the logarithm: the smallest normal float32


class External(nn.Module):
    """A file as a module. Takes (B, 3, S, S) float32, normalized; gives logits (B, K).

    layers: stand-ins for the file's feature maps, by name; hooks on them see, and may replace, what passes, as
    (B, C, H, W) in any layout of the file.
    """

    file: Tensor

    def __init__(self, kind: str, options: Options, num_classes: int) -> None:
        super().__init__()
        self.kind = kind
        self.options = options
        self.num_classes = num_classes
        self.device = torch.device("cpu")
        self.layers = nn.ModuleDict()
        self.register_buffer("file", torch.empty(0, dtype=torch.uint8))
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """What runs the file. Raises RecipeError where there is none: such a model cannot be made, only brought."""
        if self._engine is None:
            if not self.file.numel():
                raise RecipeError(
                    f"model.name: expected a model that can be trained, received {self.kind!r}, which is a finished "
                    f"file of somebody's; ask it with: lucidate predict FILE.{self.kind}"
                )
            # Weights made in inference mode could not be asked for gradients later.
            with torch.inference_mode(False), torch.enable_grad():
                self._engine = _open(self.kind, self.file.numpy().tobytes(), self.options, self.device)
        return self._engine

    @property
    def differentiable(self) -> bool:
        return self.engine.differentiable

    def load_bytes(self, content: bytes) -> None:
        """Take a file in. Raises WeightsError for one that cannot be read, UnsafeFileError for one that may not be."""
        self.file = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        self._engine = None
        self.layers = nn.ModuleDict({name: nn.Identity() for name in _module_names(self.engine.layers)})

    def forward(self, images: Tensor) -> Tensor:
        engine = self.engine
        names = zip(engine.layers, self.layers.values(), strict=True)
        logits = engine(images, {name: stand for name, stand in names if stand._forward_hooks})
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise Refused(
                f"model: expected answers of shape (images, {self.num_classes}), received {tuple(logits.shape)}"
            )
        logits = logits.float()
        if self.options.outputs == "probabilities" and not engine.softmaxed:
            logits = logits.clamp(min=TINY).log()
        return logits if self.options.order is None else logits[:, torch.tensor(self.options.order)]

    def baseline(self, images: Tensor) -> Tensor:
        """(1, 3, S, S): an image of the mean color, normalized, to be seen beside `images` (B, 3, S, S)."""
        gray = torch.tensor(self.options.gray, dtype=images.dtype, device=images.device)
        return gray[:, None, None].expand(1, *images.shape[1:])

    def scramble(self, images: Tensor, generator: torch.Generator) -> None:
        """As in `Engine`, in place; the file stays what it is, and its next copy begins from it."""
        self.engine.scramble(images, generator)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],  # noqa: ARG002
        strict: bool,  # noqa: ARG002
        missing_keys: list[str],
        unexpected_keys: list[str],  # noqa: ARG002
        error_msgs: list[str],
    ) -> None:
        """The bytes may be of any number, which torch's own way would refuse."""
        content = state_dict.get(f"{prefix}file")
        if content is None:
            missing_keys.append(f"{prefix}file")
        elif content.dtype != torch.uint8 or content.ndim != 1:
            error_msgs.append(f"{prefix}file: expected bytes, received {content.dtype} of shape {tuple(content.shape)}")
        else:
            self.load_bytes(content.cpu().numpy().tobytes())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> External:  # noqa: ARG002
        """Bytes stay where they are, and what they are; where to compute is for the next engine to know."""
        device = fn(torch.empty(0)).device
        if device != self.device:
            self.device, self._engine = device, None
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}  # copies open their own


def _module_names(layers: Iterable[str]) -> list[str]:
    """Names of layers as modules may have them: without dots, each once, and none that torch has taken."""
    taken: dict[str, None] = {}
    for layer in layers:
        name = layer.replace(".", "_") or "_"
        while name in taken or hasattr(nn.ModuleDict, name):
            name += "_"
        taken[name] = None
    return list(taken)


def require_gradients(model: nn.Module, *, refuse: Callable[[str], Exception]) -> None:
    """Raise what `refuse` makes of a kind's name where a part of a model cannot be followed backwards."""
    for module in model.modules():
        if isinstance(module, External) and not module.differentiable:
            raise refuse(module.kind)


def build_external(name: str, options: Mapping[str, Any], num_classes: int) -> External:
    """A module that waits for its file. Raises RecipeError."""
    try:
        chosen = Options.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RecipeError(
            f"model.{key}: expected what lucidate writes of a model from elsewhere ({first['msg']}); such a model is "
            f"not trained: lucidate predict FILE.{name}"
        ) from None
    return External(name, chosen, num_classes)


def _open(kind: str, content: bytes, options: Options, device: torch.device) -> Engine:
    if kind == ONNX:
        from lucidate.models.onnx_engine import OnnxEngine

        return OnnxEngine(content, layout=options.layout, outputs=options.outputs)
    from lucidate.models.keras_engine import KerasEngine  # Keras takes seconds

    return KerasEngine(content, device=device)
