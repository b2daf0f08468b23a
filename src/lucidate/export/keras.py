"""A run as a Keras 3 model of stock layers: `keras.models.load_model` opens it, on any backend, without lucidate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lucidate.core.atomic import atomic_path
from lucidate.core.errors import ExportError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.export.parity import Format
from lucidate.export.torch_program import silent
from lucidate.models.checkpoint import load_model
from lucidate.models.keras import keras_on_torch, write_metadata
from lucidate.models.predictor import Views
from lucidate.models.registry import ToKeras, with_keras


def export_keras(run: RunDir, path: Path, *, views: Views | None = "one") -> None:  # noqa: ARG001
    """Write a run's model as a `.keras` file: (N, S, S, 3) pixels, 0 to 255, to probabilities (N, K), float32.

    Normalization is inside; views and resizing are not. Raises ExportError for a model that is not `registry.ToKeras`,
    and where Keras is not installed.
    """
    card = RunCard.load(run.card)
    if card.recipe.model.name not in with_keras():
        raise ExportError(
            f"--format: expected {' or '.join(with_keras())} for keras, received {card.recipe.model.name}; export it "
            "as onnx or torch"
        )
    keras = keras_on_torch()
    model, own = load_model(run), Preprocess.from_dict(card.preprocess)
    assert isinstance(model, ToKeras)
    with keras.device("cpu"), silent(), atomic_path(path) as temporary:
        pixels = keras.Input((own.size, own.size, 3), name="images")
        values = keras.layers.Rescaling(1 / 255, name="scale")(pixels)
        variance = [value**2 for value in own.std]
        values = keras.layers.Normalization(mean=list(own.mean), variance=variance, name="normalize")(values)
        logits = model.to_keras(KerasLayers(keras.layers), values)
        answers = keras.layers.Softmax(name="probabilities")(logits)
        keras.Model(pixels, answers, name=card.recipe.model.name).save(temporary)
        write_metadata(temporary, {"class_names": card.classes, "preprocess": {**card.preprocess, "inside": True}})


def load_keras(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """A `.keras` file of ours as a function: uint8 images (B, S, S, 3) → probabilities (B, K)."""
    keras = keras_on_torch()
    with keras.device("cpu"), silent():
        model = keras.models.load_model(path, compile=False)

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with keras.device("cpu"), silent():
            probabilities: NDArray[np.float32] = model.predict_on_batch(images)
        return probabilities

    return answer


class KerasLayers:
    """Torch's layers as Keras's, with their weights, each applied to a value of a functional model.

    keras: the module of Keras's own layers.
    """

    def __init__(self, keras: Any) -> None:
        self.keras = keras

    def conv(self, conv: nn.Conv2d, value: Any) -> Any:
        """Filters (O, I, h, w) are (h, w, I, O) in Keras."""
        layer = self.keras.Conv2D(
            conv.out_channels,
            conv.kernel_size,
            padding="same" if max(conv.padding) else "valid",
            use_bias=conv.bias is not None,
        )
        return _filled(layer, value, conv.weight.permute(2, 3, 1, 0), conv.bias)

    def norm(self, norm: nn.BatchNorm2d, value: Any) -> Any:
        """Keras's momentum is the share that stays."""
        learned = norm.weight.requires_grad  # fastnet's scale is 1 and stays so
        layer = self.keras.BatchNormalization(momentum=1 - (norm.momentum or 0.0), epsilon=norm.eps, scale=learned)
        return _filled(layer, value, norm.weight if learned else None, norm.bias, norm.running_mean, norm.running_var)

    def dense(self, dense: nn.Linear, value: Any, *, scale: float = 1.0, name: str | None = None) -> Any:
        """scale: of the layer's outputs."""
        layer = self.keras.Dense(dense.out_features, use_bias=dense.bias is not None, name=name)
        return _filled(layer, value, dense.weight.T * scale, None if dense.bias is None else dense.bias * scale)

    def any(self, layer: nn.Module, value: Any) -> Any:
        """Whatever a layer is."""
        if isinstance(layer, nn.Conv2d):
            return self.conv(layer, value)
        if isinstance(layer, nn.BatchNorm2d):
            return self.norm(layer, value)
        if isinstance(layer, nn.Linear):
            return self.dense(layer, value)
        if isinstance(layer, nn.ReLU):
            return self.keras.ReLU()(value)
        if isinstance(layer, nn.GELU):
            return self.keras.Activation("gelu")(value)  # Keras's own, too, is the exact one
        if isinstance(layer, nn.MaxPool2d):
            return self.keras.MaxPooling2D(2)(value)
        if isinstance(layer, nn.Dropout):
            return self.keras.Dropout(layer.p)(value)
        raise ExportError(f"--format: expected layers that Keras has, received a {type(layer).__name__}")


def _filled(layer: Any, value: Any, *weights: Tensor | None) -> Any:
    """The layer, built and given its weights, in Keras's order; None: it has no such weight."""
    result = layer(value)
    layer.set_weights([weight.detach().contiguous().numpy() for weight in weights if weight is not None])
    return result


FORMAT = Format(file="model.keras", write=export_keras, open=load_keras, packages=("keras", "torch"), one_view=True)
