"""A run's own model as a backend: what answers where nothing was exported."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.models.checkpoint import load_model
from lucidate.models.tta import tta_logits


class Module:
    """The run's own model, with the views that its recipe asks for."""

    def __init__(self, run: RunDir, *, device: torch.device | str = "cpu") -> None:
        card = RunCard.load(run.card)
        self.model = load_model(run, device=device)
        self.preprocess = Preprocess.from_dict(card.preprocess)
        self.views, self.mirror = card.recipe.predict.views, card.data.flips
        self.device = torch.device(device)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pixels = self.preprocess.normalize(torch.from_numpy(images).to(self.device))
            logits = tta_logits(self.model, pixels, views=self.views, mirror=self.mirror)
            return logits.float().cpu().numpy()
