"""Heatmaps of a few images: of files of any size, or of a run's own by their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lucidate.analysis.heatmaps import heat_colors
from lucidate.core.atomic import atomic_path
from lucidate.core.errors import ExplainError
from lucidate.core.records import RunCard, slug
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack
from lucidate.data.preprocess import Preprocess
from lucidate.data.splits import open_data
from lucidate.explain.heatmaps import heatmaps, layers_for, member_maps, resized
from lucidate.explain.of_run import Target
from lucidate.models.checkpoint import load_model
from lucidate.models.ensemble import Ensemble
from lucidate.predict.new_data import read_image

STRENGTH = 0.65  # of the color where a map is highest; the image stays to be seen
SHOWN = 256  # pixels a side, at least, of a picture that is written


@dataclass(frozen=True, eq=False)
class Explained:
    """One image's heatmap.

    predicted: the class that is explained; against: the one that it is set against, if any. confidence: probability of
    the first. peak: highest absolute value of the map; 0: it is empty, and the picture is the plain image. members:
    of an ensemble, each member's picture by its name; the map itself is their mean.
    """

    name: str
    predicted: str
    against: str | None
    confidence: float
    peak: float
    picture: str
    raw: str
    members: Mapping[str, str]


def explain_images(
    run: RunDir,
    images: Sequence[str],
    *,
    out: Path,
    method: str = "gradcam",
    target: Target = "predicted",
    layer: str | None = None,
    device: torch.device | str = "cpu",
) -> list[Explained]:
    """Write NAME.png, the image under its heatmap, and NAME.npy, the map as it is, for each image into `out`.

    Of an ensemble, NAME-MEMBER.png and .npy beside them, for each member.
    images: paths of files, or ids of the run's own images. target: as in `explain_run`; of files, whose true class
    nobody knows, "difference" is against the second likeliest. Raises ExplainError, RunError.
    """
    card = RunCard.load(run.card)
    preprocess = Preprocess.from_dict(card.preprocess)
    model = load_model(run, device=device)
    layers = layers_for(model, preprocess.size, method=method, name=layer)
    pack: Pack | None = None
    found = []
    for name in images:
        label = None
        if Path(name).is_file():
            pixels = read_image(Path(name), preprocess.size)
        else:
            pack = pack or open_data(run).pack
            rows = np.flatnonzero(pack.ids == name)
            if not len(rows):
                raise ExplainError(
                    f"--images: expected files, or ids of the run's images such as {pack.ids[0]}, received {name!r}"
                )
            pixels, label = np.array(pack.images[rows[0]]), int(pack.labels[rows[0]])
        shown = preprocess.normalize(torch.from_numpy(pixels)[None].to(device))
        with torch.no_grad():
            probabilities = model(shown).softmax(1)[0]
        best, second = probabilities.topk(2).indices.tolist()
        asked, other = best, None
        if target == "true":
            if label is None:
                raise ExplainError(f"--target: expected predicted or difference for a file, received true with {name}")
            asked = label
        elif target == "difference":
            other = second if label in (None, best) else label
        chosen = torch.tensor([asked], device=shown.device)
        rival = None if other is None else torch.tensor([other], device=shown.device)
        raw = heatmaps(model, shown, chosen, method=method, layers=layers, against=rival)
        stem = f"{slug(Path(name).stem if label is None else name)}-{method}"
        picture = _write(pixels, raw, out / f"{stem}.png")
        members = {}
        if isinstance(model, Ensemble):
            each = member_maps(model, shown, chosen, method=method, layers=layers, against=rival)
            for member, theirs in zip(model.settings, each, strict=True):
                members[member.name] = str(_write(pixels, theirs, out / f"{stem}-{slug(member.name)}.png"))
        found.append(
            Explained(
                name=name,
                predicted=card.classes[asked],
                against=None if other is None else card.classes[other],
                confidence=float(probabilities[asked]),
                peak=float(raw.abs().max()),
                picture=str(picture),
                raw=str(picture.with_suffix(".npy")),
                members=members,
            )
        )
    return found


def _write(pixels: NDArray[np.uint8], raw: torch.Tensor, picture: Path) -> Path:
    """Write the image under its map as a PNG, and the map beside it; the picture's path."""
    side = SHOWN * max(1, -(-pixels.shape[0] // SHOWN))
    scaled = raw / raw.abs().max().clamp(min=1e-30)
    large = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))
    shown = resized(scaled, side)[0].clamp(min=0).cpu().numpy()
    with atomic_path(picture) as temporary:
        Image.fromarray(overlay(large, shown)).save(temporary, "PNG")
    with atomic_path(picture.with_suffix(".npy")) as temporary, temporary.open("wb") as file:
        np.save(file, raw[0].cpu().numpy())
    return picture


def overlay(image: NDArray[np.uint8], heatmap: NDArray[Any]) -> NDArray[np.uint8]:
    """The image (H, W, 3) under a heatmap (H, W) in [0, 1]; where that is 0, be it everywhere, it is as it was."""
    weight = STRENGTH * np.clip(heatmap, 0, 1)[..., None]
    return np.rint((1 - weight) * image + weight * heat_colors(heatmap)).astype(np.uint8)
