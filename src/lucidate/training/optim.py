"""What is minimized, over which parameters, and by which optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from lucidate.core.errors import RecipeError
from lucidate.core.recipe import Recipe, TrainRecipe
from lucidate.data.augment import partners
from lucidate.data.batches import Batch
from lucidate.models.build import backbone, begins_with_weights

NORMS = (nn.modules.batchnorm._BatchNorm,)  # layers that change in training even where no gradient reaches them
QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0 of the odd quintics that end near 1; from Muon's source
NEWTON_SCHULZ_STEPS = 3  # singular values end between about 0.3 and 1.2, which is enough for an update


def classification_loss(logits: Tensor, batch: Batch, *, recipe: TrainRecipe, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy in nats, a scalar; lower is better. logits: (B, K) float32.

    weights: (K,), of the losses of each class's images. Mixed images count for their own label by `share`, and for
    their partner's by the rest.
    """

    def cross_entropy(labels: Tensor) -> Tensor:
        smoothing = recipe.label_smoothing
        if weights is None:
            return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        # Not torch's `weight`: it weighs smoothing's share of every other class too, so that where classes are very
        # uneven each image is pushed towards the rare one; and it divides by the batch's sum of weights, so that rare
        # images weigh less in batches that hold more of them.
        losses = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (losses * weights[labels]).mean()

    loss = cross_entropy(batch.labels)
    if batch.share == 1:
        return loss
    theirs = batch.labels[partners(len(batch.labels)).to(batch.labels.device)]
    return batch.share * loss + (1 - batch.share) * cross_entropy(theirs)


def make_optimizer(model: nn.Module, recipe: TrainRecipe, *, layer_decay: float = 1.0) -> optim.Optimizer:
    """The recipe's optimizer over every trainable parameter.

    Weight decay acts on matrices and filters only: decaying biases and norm scales regularizes nothing. Under muon it
    acts on dense layers and biases, while filters are held at a fixed norm.
    layer_decay: factor of the rate a layer, from the head down; not for muon.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "muon":
        return _muon(parameters, recipe)
    if layer_decay < 1:
        groups = layered_groups(model, weight_decay=recipe.weight_decay, layer_decay=layer_decay)
    else:
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    # Fused: one kernel for all tensors; on CPU, too, it saves several milliseconds a step.
    if recipe.optimizer == "sgd":
        return optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
    kind = optim.Adam if recipe.optimizer == "adam" else optim.AdamW
    return kind(groups, lr=recipe.lr, fused=True)


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Give every group the rate, in its own proportion where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def _muon(parameters: list[nn.Parameter], recipe: TrainRecipe) -> Muon:
    """Muon for filters; Nesterov SGD with rates of their own for dense layers and for biases."""
    head_lr, bias_lr = recipe.head_lr or recipe.lr, recipe.bias_lr or recipe.lr
    filters = [p for p in parameters if p.ndim > 2]
    groups = [
        {"params": filters, "matrix": True, "momentum": recipe.muon_momentum},
        {"params": [p for p in parameters if p.ndim == 2], "lr_scale": head_lr / recipe.lr},
        {"params": [p for p in parameters if p.ndim < 2], "lr_scale": bias_lr / recipe.lr},
    ]
    for group, highest in zip(groups[1:], (head_lr, bias_lr), strict=True):
        group["weight_decay"] = recipe.weight_decay / highest
    return Muon([group for group in groups if group["params"]], lr=recipe.lr, momentum=recipe.momentum)


def layer_of(model: nn.Module) -> dict[str, int]:
    """Parameter name → its layer, 0 at the images, the head last. Raises RecipeError for models that do not say."""
    net, prefix = backbone(model)
    if net is None:
        raise RecipeError(
            "train.freeze, train.layer_decay: expected a model of timm's, which know how deep their layers lie, "
            f"received {type(model).__name__}"
        )
    from timm.models import group_parameters

    layers: dict[str, int] = group_parameters(net, net.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    return {prefix + name: layer for name, layer in layers.items()}


def freeze(model: nn.Module, share: float) -> None:
    """Let the first `share` of the layers (0 to 1) keep their weights; the head, the last layer, always learns."""
    layers = layer_of(model)
    last = max(layers.values())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(layers[name] >= min(round(share * (last + 1)), last))


def let_learn(model: nn.Module, recipe: Recipe, *, frozen: bool) -> None:
    """Put a model into training mode with those layers learning that the recipe asks for, where it begins with weights.

    frozen: whether `train.freeze` holds, as it does until `train.thaw`.
    """
    settings, pretrained = recipe.train, begins_with_weights(recipe.model)
    model.train()
    if pretrained and settings.freeze:
        freeze(model, settings.freeze if frozen else 0.0)
    hold_statistics(model, every=pretrained and settings.freeze_norms)


def hold_statistics(model: nn.Module, *, every: bool) -> None:
    """After `model.train()`: normalizations keep their statistics where all their weights are frozen, or everywhere."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, NORMS) and (every or (own and not any(p.requires_grad for p in own))):
            module.eval()


def layered_groups(model: nn.Module, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Parameter groups whose rates fall by `layer_decay` a layer from the head towards the images.

    After H. Bao et al., "BEiT" (arXiv:2106.08254). Weight decay acts on matrices and filters only.
    """
    layers = layer_of(model)
    last = max(layers.values())
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (layers[name], parameter.ndim > 1)
            scale = layer_decay ** (last - layers[name])
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault(key, {"params": [], "lr_scale": scale, "weight_decay": decay})["params"].append(parameter)
    return list(groups.values())


class Muon(optim.Optimizer):
    """Momentum whose matrices are made orthogonal before they are applied; plain Nesterov SGD for the rest.

    After K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). A filter bank counts as a
    matrix of its output channels by everything else. Orthogonal updates move all directions alike, not only the few
    that dominate the gradient. One class for both kinds, so that a checkpoint holds one optimizer.

    groups: dictionaries with params, lr, momentum, weight_decay and matrix; those with `matrix=True` get orthogonal
    updates, their weights held at the norm √(output channels); others Nesterov SGD.
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
    for _ in range(NEWTON_SCHULZ_STEPS):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.T if tall else x
