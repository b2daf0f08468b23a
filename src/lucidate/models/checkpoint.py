"""weights.safetensors and the run's card → model, and back. Never a pickle."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

from lucidate.core.atomic import atomic_write
from lucidate.core.errors import RunError, raised_as
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.core.text import one_line
from lucidate.models.build import build, to_device
from lucidate.models.ensemble import Ensemble
from lucidate.models.predictor import InferenceConfig, TorchPredictor, Views


def save_weights(model: nn.Module, path: Path) -> None:
    """Write parameters and statistics. The same values give the same bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    atomic_write(path, save(state))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model in place. Raises RunError for a file that is damaged or of another architecture."""
    if not path.exists():
        raise RunError(f"{path}: expected weights in safetensors; there is no such file")
    with raised_as(RunError, f"{path}: expected weights in safetensors, received a file that cannot be read"):
        state = load_file(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        detail = one_line(error, limit=200)
        raise RunError(f"{path}: expected the weights of this architecture, received others ({detail})") from None


def load_model(run: RunDir, *, device: torch.device | str = "cpu") -> nn.Module:
    """A run's trained model, in evaluation mode and channels_last."""
    card = RunCard.load(run.card)
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: leave no trace of drawing them
        model = build(card.recipe.model, len(card.classes), image_size=card.data.image_size, initial=False)
    load_weights(model, run.weights)
    return to_device(model, device).eval()


def load_predictor(run: RunDir, *, views: Views | None = None, device: torch.device | str = "cpu") -> TorchPredictor:
    """A run's trained model, ready to answer. views: in place of the recipe's; of an ensemble, of every member's."""
    model, card = load_model(run, device=device), RunCard.load(run.card)
    if isinstance(model, Ensemble) and views:
        model.set_views(views)
    return TorchPredictor(model, InferenceConfig.of_run(card, views=views), device=device)
