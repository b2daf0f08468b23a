"""Gradients of depthwise convolutions on a processor, by the kernels of oneDNN that are quick.

Their forward pass is quick at any size. Of the gradients two are not, since a kernel for groups of any size computes
them: those of filters wider than three, in bfloat16 6 to 16 times as slow as they could be and in float32 up to twice;
and in bfloat16 those of the input where there are strides, 7 to 16 times (bench/LOG.md). EfficientNets have many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.overrides import TorchFunctionMode

WIDTH = 3  # of the filters whose gradients have a quick kernel, whatever their height


def quick_gradients(device: torch.device, *, compiled: bool = False) -> AbstractContextManager[Any]:
    """A forward pass within it has the gradients of its depthwise convolutions computed the quick way, on a processor.

    Values are those of `torch.nn.functional.conv2d`, gradients too, but for the order in which they are summed; under
    autocast as there. compiled: whether torch.compile makes the model's kernels, and is left alone.
    """
    return nullcontext() if compiled or device.type != "cpu" else _QuickDepthwise()


class _QuickDepthwise(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.conv2d and not kwargs and len(args) == 7:
            images, filters, bias, stride, padding, dilation, groups = args
            if _suits(images, filters, stride, padding, dilation, groups):
                tensors = [images, filters, bias]
                if torch.is_autocast_enabled("cpu"):
                    kind = torch.get_autocast_dtype("cpu")
                    tensors = [None if tensor is None else tensor.to(kind) for tensor in tensors]
                return _Depthwise.apply(*tensors, stride[0], padding)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


def _suits(images: Tensor, filters: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether this is a depthwise convolution on a processor, as nn.Conv2d asks for it, whose gradients are slow."""
    channels, width = filters.shape[0], filters.shape[3]
    return (
        torch.is_grad_enabled()
        and images.device.type == "cpu"
        and images.ndim == 4
        and images.shape[1] == channels == groups > 1
        and isinstance(stride, tuple)
        and isinstance(padding, tuple)
        and tuple(dilation) == (1, 1)
        and stride[0] == stride[1]
        and (width > WIDTH or stride[0] > 1)
    )


class _Depthwise(torch.autograd.Function):
    """images (B, C, H, W), filters (C, 1, h, w), bias (C) or None, all of one dtype; gives (B, C, H', W')."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, filters: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(images, filters)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, filters, bias, stride, padding, 1, len(filters))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, filters = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_images, of_filters, of_bias, *_ = ctx.needs_input_grad
        where = {"stride": ctx.stride, "padding": ctx.padding}
        return (
            images_gradient(images.shape, filters, gradient, **where) if of_images else None,
            filters_gradient(images, filters.shape, gradient, **where) if of_filters else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def images_gradient(
    shape: Sequence[int], filters: Tensor, gradient: Tensor, *, stride: int, padding: tuple[int, int]
) -> Tensor:
    """(B, C, H, W): that of the input of a depthwise convolution, whose output's is (B, C, H', W')."""
    channels, _, height, width = filters.shape
    if stride > 1 and gradient.dtype == torch.bfloat16:
        # As without strides, with a gradient of zero for what they pass by.
        size = len(gradient), channels, shape[2] + 2 * padding[0] - height + 1, shape[3] + 2 * padding[1] - width + 1
        spread = gradient.new_zeros(size).contiguous(memory_format=torch.channels_last)
        spread[:, :, ::stride, ::stride] = gradient
        gradient, stride = spread, 1
    found: Tensor = conv2d_input(shape, filters, gradient, stride, padding, 1, channels)  # type: ignore[no-untyped-call]
    return found


def filters_gradient(
    images: Tensor, shape: Sequence[int], gradient: Tensor, *, stride: int, padding: tuple[int, int]
) -> Tensor:
    """shape, (C, 1, h, w): that of the filters of a depthwise convolution, whose output's is (B, C, H', W').

    Wide filters are put together of narrow ones, which see the images from their own column on.
    """
    channels, _, height, width = shape
    if width <= WIDTH:
        found: Tensor = conv2d_weight(images, shape, gradient, stride, padding, 1, channels)  # type: ignore[no-untyped-call]
        return found
    if any(padding):
        images = functional.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    seen = (gradient.shape[3] - 1) * stride + WIDTH  # columns
    found = images.new_empty(shape)
    for column in (*range(0, width - WIDTH, WIDTH), width - WIDTH):  # where the last two overlap, they agree
        part = images[..., column : column + seen].contiguous(memory_format=torch.channels_last)
        narrow = filters_gradient(part, (channels, 1, height, WIDTH), gradient, stride=stride, padding=(0, 0))
        found[..., column : column + WIDTH] = narrow
    return found
