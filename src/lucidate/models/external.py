"""Models in somebody else's format: ONNX graphs and Keras files, as modules that a run's folder can hold.

Their state is the bytes of the file they came in, so that `weights.safetensors` and ensembles carry them like any other
weights. What reads and runs those bytes is an `Engine`, a file each: `onnx`, `keras`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from lucidate.core.errors import RecipeError
from lucidate.core.records import Section
from lucidate.core.registry import ONNX
from lucidate.models.predictor import Refused
from lucidate.models.registry import written_options

TINY = 1e-38  # probabilities of 0 become this before the logarithm: the smallest normal float32


class Options(Section):
    """What stands under `[model]` of the recipe of such a model.

    outputs: what the file gives. layout: of its input. order: its column for each class of the run; None: as they are.
    gray: a normalized pixel, that of a mean image, which stands for "nothing" where something is hidden.
    """

    outputs: Literal["logits", "probabilities"]
    layout: Literal["NCHW", "NHWC"]
    order: tuple[int, ...] | None = None
    gray: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Engine(Protocol):
    """What runs a file.

    differentiable: whether torch can follow it backwards. layers: names of its feature maps. softmaxed: whether the
    file ends in softmax, which is then left away: answers are logits. parameters, values: as in a run card.
    What the file says, None where it does not: shape, pixels, layout: of its input; classes: how many;
    metadata: what stands beside it, by key.
    """

    differentiable: bool
    layers: tuple[str, ...]
    softmaxed: bool
    parameters: int
    values: int
    shape: tuple[int | None, ...]
    pixels: str
    layout: str | None
    classes: int | None

    @property
    def metadata(self) -> dict[str, Any]: ...

    def __call__(self, images: Tensor, through: Mapping[str, nn.Module]) -> Tensor:
        """(B, 3, S, S) → (B, K). through: by layer, what its map (B, C, H, W) passes through. Raises Refused."""

    def rehearse(self, images: Tensor) -> Tensor:
        """As the first call, for a file that nobody has tried: it ends, whatever the file does. Raises Refused."""

    def scramble(self, images: Tensor, generator: torch.Generator) -> None:
        """Draw the weights anew, normal with each one's own deviation; statistics are measured on images again."""


def open_engine(
    kind: str, content: bytes, *, outputs: str | None, layout: str | None = None, device: torch.device | str = "cpu"
) -> Engine:
    """What runs a file's bytes. Raises WeightsError for one that cannot be read, UnsafeFileError."""
    if kind == ONNX:
        from lucidate.models.onnx import OnnxEngine

        return OnnxEngine(content, layout=layout, outputs=outputs)
    from lucidate.models.keras import KerasEngine  # Keras takes seconds

    return KerasEngine(content, device=device)


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
            content, own = self.file.numpy().tobytes(), self.options
            # Weights made in inference mode could not be asked for gradients later.
            with torch.inference_mode(False), torch.enable_grad():
                self._engine = open_engine(
                    self.kind, content, outputs=own.outputs, layout=own.layout, device=self.device
                )
        return self._engine

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

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """The bytes may be of any number, which torch's own way would refuse."""
        _, _, missing_keys, _, errors = rest
        content = state_dict.get(f"{prefix}file")
        if content is None:
            missing_keys.append(f"{prefix}file")
        elif content.dtype != torch.uint8 or content.ndim != 1:
            errors.append(f"{prefix}file: expected bytes, received {content.dtype} of shape {tuple(content.shape)}")
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


def build_external(name: str, options: Mapping[str, Any], num_classes: int) -> External:
    """A module that waits for its file. Raises RecipeError."""
    what = "what lucidate writes of a model from elsewhere"
    way_on = f"; such a model is not trained: lucidate predict FILE.{name}"
    return External(name, written_options(Options, options, what=what, way_on=way_on), num_classes)
