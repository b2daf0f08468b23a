"""Heatmaps a second: ours against the public grad-cam package, same model, layer, images and targets, taking turns.

    python bench/heatmaps.py [--data SRC] [--images 2000] [--turns 3] [--json]

The compact CNN with fresh weights (speed does not depend on them), Grad-CAM of the predicted class, batches of 128 on
both sides, each side's best turn. Theirs is called as its documentation shows, on a whole batch. Writes
bench/results/heatmaps.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lucidate.cli.process import tune_process

RESULT = Path(__file__).with_name("results") / "heatmaps.json"
BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="SRC of the images, brought to 32 pixels")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    arguments = parser.parse_args()
    tune_process()
    import torch

    from lucidate.core import machine
    from lucidate.core.recipe import ModelRecipe
    from lucidate.data.pack import open_pack
    from lucidate.data.preprocess import fit_preprocess
    from lucidate.explain.cam import class_maps, find_layer
    from lucidate.explain.heatmaps import resized
    from lucidate.models.build import build, to_device
    from lucidate.models.timm import declare_missing_operators

    declare_missing_operators()  # the peer imports torchvision
    pack = open_pack(arguments.data, image_size=32)
    rows = np.arange(arguments.images) % len(pack)
    preprocess = fit_preprocess(pack.images, np.arange(len(pack)))
    torch.manual_seed(0)
    model = to_device(build(ModelRecipe(name="compact"), len(pack.class_names)), "cpu").eval()
    pixels = torch.from_numpy(np.asarray(pack.images[rows]))
    batches = [preprocess.normalize(part) for part in pixels.split(BATCH)]
    layer = find_layer(model, 32)

    def ours() -> list[np.ndarray]:
        return [resized(class_maps(model, images, layer), 32).numpy() for images in batches]

    def theirs() -> list[np.ndarray]:
        from pytorch_grad_cam import GradCAM

        with GradCAM(model=model, target_layers=[model.get_submodule(layer.name)]) as cam:
            return [cam(input_tensor=images, targets=None) for images in batches]  # of the predicted class

    times: dict[str, list[float]] = {"ours": [], "grad_cam": []}
    sides: dict[str, Callable[[], Any]] = {"ours": ours, "grad_cam": theirs}
    for _ in range(arguments.turns + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - start)
    best = {name: min(values[1:]) for name, values in times.items()}  # the first turn prepares kernels
    result = {
        "images": arguments.images,
        "ours_per_second": arguments.images / best["ours"],
        "grad_cam_per_second": arguments.images / best["grad_cam"],
        "ratio": best["grad_cam"] / best["ours"],
        "seconds": times,
        "layer": layer.name,
        "data": arguments.data,
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['ours_per_second']:,.0f} heatmaps a second, {result['ratio']:.1f} times as many as the grad-cam "
            f"package's {result['grad_cam_per_second']:,.0f}"
        )


if __name__ == "__main__":
    main()
