"""The one way to ask a model: uint8 images (B, S, S, 3) → logits (B, K).

What is done to images on the way, and to answers on the way back, is an `InferenceConfig`. Whatever computes is behind
`Predictor`: torch here, ONNX Runtime in `onnx_session`; `.onnx` and `.keras` files of others are modules (`external`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lucidate.core.errors import RunError
from lucidate.core.records import RunCard
from lucidate.data.preprocess import Preprocess
from lucidate.models.folding import fold_norms

Views = Literal["one", "mirror", "mirror-shift"]
BATCH = 128  # at most: on two cores, images of 32 pixels gain nothing by larger ones
PIXELS = 64 * 64 * 64  # of a batch: 96-pixel images in batches of 32 are predicted twice as fast as in batches of 128
ACCELERATOR_BATCH = 1_000  # keeps an accelerator busy; six views of it still fit in little memory


class Refused(RunError, RuntimeError):
    """A model's own code refuses what it is given, such as images of another size."""


class Predictor(Protocol):
    """A model ready to answer: resizing, normalization, views and class order are inside. batch_size: what suits it."""

    batch_size: int

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (B, K) of images (B, S, S, 3), 0 to 255, of the model's size."""

    def start(self, images: NDArray[np.uint8]) -> Any:
        """As a call, but what comes may still be computed: an accelerator need not wait for each batch."""

    def collect(self, started: Sequence[Any]) -> NDArray[np.float32]:
        """Logits (M, K) of everything that was started, in order."""

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, D), what the last layer sees of one view. Raises RunError for a model that does not give them."""


@dataclass(frozen=True)
class InferenceConfig:
    """How a model is asked.

    views: "one" is the image as it is; "mirror" adds its mirror image; "mirror-shift" both, moved as well
    (`average_views`). mirror: False where a mirrored image does not keep its class. order: the column of the model's
    answer for each class; None: as they are.
    """

    preprocess: Preprocess
    views: Views = "one"
    mirror: bool = False
    order: tuple[int, ...] | None = None

    @classmethod
    def of_run(cls, card: RunCard, *, views: Views | None = None) -> InferenceConfig:
        """As the run's recipe says. views: in place of the recipe's."""
        return cls(Preprocess.from_dict(card.preprocess), views or card.recipe.predict.views, card.data.flips)

    @property
    def mirrored(self) -> bool:
        """Whether a mirror image is among the views."""
        return self.mirror and self.views != "one"

    def normalize(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1], of any size, as the model wants to see them."""
        own = self.preprocess
        if images.shape[-1] != own.size:
            images = functional.interpolate(images, (own.size, own.size), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (own.mean, own.std))
        return (images - mean) / std


class InferenceModel(nn.Module):
    """A network with its `InferenceConfig`. Takes (B, S, S, 3) uint8; gives logits (B, K).

    It is what torch predicts with and what is exported. at_once: all views of a batch are one larger batch, so that a
    graph holds the network once, not six times; one after the other, they stay in a processor's cache.
    """

    def __init__(self, model: nn.Module, config: InferenceConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.at_once = False

    def forward(self, pixels: Tensor) -> Tensor:
        return model_logits(self.model, self.prepare(pixels), self.config, at_once=self.at_once)

    def prepare(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) float32, as the network takes them."""
        if pixels.shape[1] == self.config.preprocess.size:
            return self.config.preprocess.normalize(pixels)
        return self.config.normalize(pixels.permute(0, 3, 1, 2).float() / 255)


class TorchPredictor:
    """A network on a device, as a `Predictor`; `model` must be there already. Its mode is set to evaluation."""

    def __init__(self, model: nn.Module, config: InferenceConfig, *, device: torch.device | str = "cpu") -> None:
        self.module = InferenceModel(model, config).eval()
        self.device = torch.device(device)
        self.batch_size = batch_size(model, config.preprocess.size, self.device)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.collect([self.start(images)])

    @torch.no_grad()
    def folded(self) -> TorchPredictor:
        """One that answers the same, up to rounding, and sooner: for many images, and not to be looked into."""
        size, noise = self.module.config.preprocess.size, torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=noise)
        images = self.module.prepare(pixels.to(self.device))
        return TorchPredictor(fold_norms(self.module.model, images=images), self.module.config, device=self.device)

    @torch.inference_mode()
    def start(self, images: NDArray[np.uint8]) -> Tensor:
        logits: Tensor = self.module(self._on_device(images))
        return logits.float()

    @torch.inference_mode()
    def start_views(self, images: NDArray[np.uint8]) -> Tensor:
        """As `start`, but (B, 1 + V, K): the answer, then what it is the average of, the image as it is first."""
        seen = self.module.prepare(self._on_device(images))
        views = view_logits(self.module.model, seen, self.module.config)
        return torch.stack([average_views(views, self.module.config), *views], 1).float()

    def collect(self, started: Sequence[Tensor]) -> NDArray[np.float32]:
        return torch.cat(list(started)).cpu().numpy()

    @torch.inference_mode()
    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        embed: Any = getattr(self.module.model, "embed", None)
        if embed is None:
            kind = type(self.module.model).__name__.lower()
            raise RunError(f"embed: expected a network of lucidate's or timm's, received one without: {kind}")
        features: Tensor = embed(self.module.prepare(self._on_device(images)))
        return features.float().cpu().numpy()

    def _on_device(self, images: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(images)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # so that the copy runs beside the computation
        return pixels.to(self.device, non_blocking=True)


def batch_size(model: nn.Module, size: int, device: torch.device | str) -> int:
    """Images a batch of prediction by torch. size: pixels a side of the images; a network may bring them to another."""
    if torch.device(device).type != "cpu":
        return ACCELERATOR_BATCH
    side = max(getattr(part, "size", None) or size for part in (model, *getattr(model, "members", ())))
    return max(min(BATCH, PIXELS // side**2), 8)


def model_logits(model: nn.Module, images: Tensor, config: InferenceConfig, *, at_once: bool = False) -> Tensor:
    """Logits (B, K) in the config's order, averaged over its views. images: (B, 3, S, S), normalized."""
    return average_views(view_logits(model, images, config, at_once=at_once), config)


def view_logits(
    model: nn.Module, images: Tensor, config: InferenceConfig, *, at_once: bool = False
) -> tuple[Tensor, ...]:
    """Logits (B, K) of each test-time view, in the config's order, those of the image as it is first.

    images: (B, 3, S, S), normalized. at_once: as in `InferenceModel`.
    """
    if at_once and (config.mirrored or config.views == "mirror-shift"):
        seen = list(_views(images, config))
        whole: Tensor = model(torch.cat(seen))
        answers = list(whole.reshape(len(seen), -1, whole.shape[-1]).unbind())
    else:
        answers = [model(view) for view in _views(images, config)]
    if config.order is None:
        return tuple(answers)
    order = torch.tensor(config.order, device=images.device)
    return tuple(answer.index_select(1, order) for answer in answers)


def average_views(answers: Sequence[Tensor], config: InferenceConfig) -> Tensor:
    """Logits (B, K) from those of each view.

    Of "mirror" the image and its mirror image weigh the same; of "mirror-shift" they weigh half, and both moved one
    pixel up and left, and down and right, edges reflected, the other half (after K. Jordan, arXiv:2404.00498, section
    3.5).
    """
    if config.mirrored:
        answers = [(plain + mirrored) / 2 for plain, mirrored in zip(answers[::2], answers[1::2], strict=True)]
    unmoved, *moved = answers
    return unmoved / 2 + torch.stack(moved).mean(0) / 2 if moved else unmoved


def _views(images: Tensor, config: InferenceConfig) -> Iterator[Tensor]:
    """The image, then the moved ones; each followed by its mirror image, where there are such."""
    seen = [images]
    if config.views == "mirror-shift":
        size = images.shape[-1]
        padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
        seen += [padded[:, :, start : start + size, start : start + size] for start in (0, 2)]
    for view in seen:
        yield view
        if config.mirrored:
            yield view.flip(3)
