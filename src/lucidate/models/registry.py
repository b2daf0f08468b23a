"""Models by name. A model is a function `(num_classes, *, options) -> nn.Module` whose output is logits (B, K)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lucidate.core.registry import Registry

models: Registry[Callable[..., nn.Module]] = Registry("model")
register = models.register
