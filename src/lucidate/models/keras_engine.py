"""What runs a `.keras` file as a module: Keras on torch, so that gradients flow through it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lucidate.core.errors import ExportError, WeightsError
from lucidate.core.text import one_line
from lucidate.models.external_engine import Refused
from lucidate.models.keras_file import require_safe


class KerasEngine:
    """An `engine.Engine` for a file given as bytes, which is looked at before Keras loads it.

    Keras's maps are (B, H, W, C): those that somebody looks at are turned on their way.
    """

    differentiable = True

    def __init__(self, content: bytes, *, device: torch.device | str = "cpu") -> None:
        require_safe(content)
        self._keras = keras_on_torch()
        self._device = str(device)
        self._through: Mapping[str, nn.Module] = {}
        with self._keras.device(self._device):
            self._net: Any = _load(self._keras, content)
        _require_one_way(self._net)
        leaves = dict(_leaves(self._net))
        self.layers = tuple(leaves)
        for name, layer in leaves.items():
            layer.register_forward_hook(partial(self._pass, name))
        self.softmaxed = _leave_softmax_away(self._keras, self._net)
        self.values = int(self._net.count_params())
        self.parameters = sum(int(weight.value.numel()) for weight in self._net.trainable_weights)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of its input, (B, H, W, 3) where it is for color images; None where anything may stand."""
        return tuple(self._net.inputs[0].shape)

    @property
    def pixels(self) -> str:
        """Type of its input."""
        return str(self._net.inputs[0].dtype)

    @property
    def classes(self) -> int | None:
        """Columns of its answers."""
        return tuple(self._net.outputs[0].shape)[-1]

    def __call__(self, images: Tensor, through: Mapping[str, nn.Module]) -> Tensor:
        shown = images.to(self._device).permute(0, 2, 3, 1)
        if not self.pixels.startswith("float"):
            shown = shown.round().clamp(0, 255).to(torch.uint8)
        self._through = through
        try:
            with self._keras.device(self._device):
                answers: Tensor = self._net(shown, training=False)
        except Exception as error:  # Keras raises what its layers make of a shape
            reason = one_line(error)
            raise Refused(f"model: expected a model that can answer, received one that cannot: {reason}") from None
        finally:
            self._through = {}
        return answers.to(images.device)

    def rehearse(self, images: Tensor) -> Tensor:
        return self(images, {})  # layers that are known to be harmless have no loops

    @torch.no_grad()
    def scramble(self, images: Tensor, generator: torch.Generator) -> None:
        """As in `Engine`; statistics of BatchNormalization are those of the first images."""
        for weight in self._net.weights:
            value = weight.value
            if value.ndim > 1:
                noise = torch.randn(value.shape, generator=generator).to(value)
                weight.assign(noise * value.std())
        with contextlib.ExitStack() as hooks:
            for _, layer in _leaves(self._net):
                if isinstance(layer, self._keras.layers.BatchNormalization):
                    hooks.callback(layer.register_forward_pre_hook(_measure).remove)
            self(images[:128], {})

    def _pass(self, name: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> Tensor | None:
        """What a layer gives, through whoever looks at it; None: as it is."""
        stand = self._through.get(name)
        if stand is None or not isinstance(output, Tensor) or output.ndim != 4:
            return None
        turned: Tensor = stand(output.permute(0, 3, 1, 2))
        return turned.permute(0, 2, 3, 1)


def _load(keras: Any, content: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"  # Keras decides by a file's name
        path.write_bytes(content)
        try:
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # Keras, HDF5 and torch raise whatever a file makes them
            reason = one_line(error)
            raise WeightsError(
                f"model: expected a .keras file that Keras can load, received one that it cannot: {reason}"
            ) from None


def _require_one_way(net: Any) -> None:
    """Refuse networks that do not take one batch of images and give one answer each."""
    inputs, outputs = getattr(net, "inputs", None), getattr(net, "outputs", None)
    if not inputs or not outputs:
        raise WeightsError(
            "model: expected a .keras file with an Input, which says what images it takes, received none"
        )
    shapes = [tuple(one.shape) for one in (*inputs, *outputs)]
    if len(shapes) != 2 or len(shapes[0]) != 4 or len(shapes[1]) != 2:
        raise WeightsError(
            "model: expected one input (images, height, width, 3) and one output (images, classes), received "
            f"{', '.join(map(str, shapes))}"
        )


def _leaves(net: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(name, layer) of every layer that has none inside, in the order in which they stand."""
    for layer in net.layers:
        if getattr(layer, "layers", None):
            yield from _leaves(layer, f"{path}{layer.name}/")
        else:
            yield f"{path}{layer.name}", layer


def _leave_softmax_away(keras: Any, net: Any) -> bool:
    """Let a network that ends in softmax end before it, where certain answers differ still; whether it did."""
    last = net
    while getattr(last, "outputs", None):
        history = last.outputs[0]._keras_history
        last = history.operation
    if getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
        return True
    if isinstance(last, keras.layers.Softmax) and last.axis in (-1, 1):
        before: Callable[..., Any] = lambda _, inputs, __: inputs[0]  # noqa: E731
        last.register_forward_hook(before)
        return True
    return False


def _measure(norm: Any, inputs: tuple[Tensor, ...]) -> None:
    """Give a BatchNormalization the mean and variance of what comes in."""
    axes = [axis for axis in range(inputs[0].ndim) if axis != norm.axis % inputs[0].ndim]
    norm.moving_mean.assign(inputs[0].mean(axes))
    norm.moving_variance.assign(inputs[0].var(axes, unbiased=False))


def keras_on_torch() -> ModuleType:
    """The `keras` module on the torch backend; its import takes seconds. Raises ExportError where it cannot be had."""
    before = os.environ.get("KERAS_BACKEND")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"  # read once, when Keras is imported
    try:
        import keras
    except ImportError:
        raise ExportError(
            "keras: expected Keras 3, which is not installed; get it with: pip install 'lucidate[keras]'"
        ) from None
    finally:
        if before is None:
            os.environ.pop("KERAS_BACKEND", None)
        else:
            os.environ["KERAS_BACKEND"] = before
    if keras.backend.backend() != "torch":
        raise ExportError(
            f"keras: expected Keras on torch, received it on {keras.backend.backend()}; set KERAS_BACKEND=torch"
        )
    return keras
