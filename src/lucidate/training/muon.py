"""Muon: momentum whose matrices are made orthogonal before they are applied; plain Nesterov SGD for the rest.

After K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). A filter bank counts as a
matrix of its output channels by everything else. Orthogonal updates move all directions alike, not only the few that
dominate the gradient. One class for both kinds, so that a checkpoint holds one optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, optim

QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0 of the odd quintics that end near 1; from the source above
STEPS = 3  # of the iteration: singular values end between about 0.3 and 1.2, which is enough for an update


class Muon(optim.Optimizer):
    """Groups with `matrix=True` get orthogonal updates at unit norm of their weights, others Nesterov SGD.

    groups: dictionaries with params, lr, momentum, weight_decay and matrix.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "matrix": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients that stand; no closure is taken."""
        if closure is not None:
            raise ValueError("closure: expected None")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                buffer: Tensor = state["momentum_buffer"]
                buffer.mul_(group["momentum"]).add_(gradient)
                update = gradient.add(buffer, alpha=group["momentum"])
                if group["matrix"]:
                    # The scale of filters before a BatchNorm has no effect but on their step size: it is held fixed.
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    update = orthogonalize(update.flatten(1)).view_as(update)
                parameter.add_(update, alpha=-group["lr"])


def orthogonalize(matrix: Tensor) -> Tensor:
    """The matrix (M, N) with its singular values brought near 1, by three steps of a Newton–Schulz iteration.

    Every step multiplies by a polynomial in X Xᵀ. These commute, so their product is gathered among the small square
    matrices and meets the long X twice, not once or twice a step: 2.5 times as fast for 256 × 2304.
    """
    a, b, c = QUINTIC
    x = matrix / (matrix.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    gram = x @ x.T
    product = identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    for _ in range(STEPS):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.T if tall else x
