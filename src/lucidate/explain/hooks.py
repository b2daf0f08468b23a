"""A model borrowed for looking inside: hooks, mode and gradients are given back as they were, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def borrowed(model: nn.Module) -> Iterator[Callable[[nn.Module, Callable[..., Any]], RemovableHandle]]:
    """The model in evaluation mode, no parameter asking for a gradient; yields `hook(module, function)`.

    At the end, also after an exception: every module's mode, every parameter's requires_grad and gradient are what they
    were, and the hooks that were set through it are gone.
    """
    modes = [(module, module.training) for module in model.modules()]
    wants = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with ExitStack() as hooks:

        def hook(module: nn.Module, function: Callable[..., Any]) -> RemovableHandle:
            handle = module.register_forward_hook(function)
            hooks.callback(handle.remove)
            return handle

        try:
            model.eval()
            for parameter, _, _ in wants:
                parameter.requires_grad_(False)
            yield hook
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, wanted, gradient in wants:
                parameter.requires_grad_(wanted)
                parameter.grad = gradient


@contextmanager
def attribute_set(modules: list[nn.Module], name: str, value: object) -> Iterator[None]:
    """Give an attribute of some modules another value for a while."""
    before = [getattr(module, name) for module in modules]
    try:
        for module in modules:
            setattr(module, name, value)
        yield
    finally:
        for module, old in zip(modules, before, strict=True):
            setattr(module, name, old)


class ActivationHook:
    """A forward hook that keeps a layer's output, cut off from what came before, so that gradients end there."""

    def __init__(self, *, gradients: bool) -> None:
        self.gradients = gradients
        self.output: Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:  # noqa: ARG002
        self.output = output.detach().requires_grad_(self.gradients)
        # An activation that works in place would write over what is kept, and may not on a leaf: it gets a copy.
        return self.output.clone() if self.gradients else output
