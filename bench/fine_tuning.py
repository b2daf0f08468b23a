"""How fast is a pretrained network fine-tuned? Our step, and plain torch in float32 and bfloat16, taking turns.

    python bench/fine_tuning.py [--model tf_efficientnet_lite2] [--sizes 64 96 128] [--seconds 4] [--turns 3] [--json]

A step is a forward and a backward pass of a timm model, every layer learning, and AdamW, on a batch of 64 random
images. Ours runs in whichever precision is faster, as the engine's probe would choose; plain torch eagerly, in
channels_last and as timm makes it (NCHW). All stand in one process; each side's best turn counts, since other work on
the machine only ever slows one down. Writes bench/results/fine_tuning.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from lucidate.cli.process import tune_process

tune_process()  # before torch is loaded

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from lucidate.core import machine  # noqa: E402
from lucidate.core.recipe import load_recipe  # noqa: E402
from lucidate.models.build import build  # noqa: E402
from lucidate.training.depthwise import quick_gradients  # noqa: E402
from lucidate.training.precision import casting  # noqa: E402

RESULT = Path(__file__).with_name("results") / "fine_tuning.json"
BATCH, CLASSES = 64, 10
CPU = torch.device("cpu")
# Of each side: in which precision, whether in channels_last, whether with our gradients.
SIDES = {
    "ours, bfloat16": ("bfloat16", True, True),
    "ours, float32": ("float32", True, True),
    "torch, bfloat16, channels_last": ("bfloat16", True, False),
    "torch, float32, channels_last": ("float32", True, False),
    "torch, float32, NCHW": ("float32", False, False),
}


def rate(model: nn.Module, images: torch.Tensor, *, precision: str, ours: bool, seconds: float) -> float:
    """Images a second, after two steps that are not counted."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    labels = torch.arange(len(images)) % CLASSES

    def step() -> None:
        with casting(precision, CPU), quick_gradients(CPU, compiled=not ours):
            logits = model(images)
        loss = functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    for _ in range(2):
        step()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    return steps * len(images) / (time.perf_counter() - start)


def measure(name: str, size: int, *, seconds: float, turns: int) -> dict[str, list[float]]:
    """Images a second of each side, a turn after another."""
    override = [f"model.name=timm:{name}", "model.fit=upsample", f"model.size={size}", "model.pretrained=false"]
    recipe = load_recipe("fast", overrides=override)
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(turns):
        for side, (precision, last, ours) in SIDES.items():
            memory = torch.channels_last if last else torch.contiguous_format
            model = build(recipe.model, CLASSES, image_size=size).train().to(memory_format=memory)
            images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=memory)
            rates[side].append(rate(model, images, precision=precision, ours=ours, seconds=seconds))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tf_efficientnet_lite2", help="its name in timm")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128], help="sides of the images, in pixels")
    parser.add_argument("--seconds", type=float, default=4.0, help="of counted training a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args()
    found = {size: measure(options.model, size, seconds=options.seconds, turns=options.turns) for size in options.sizes}
    best = {size: {side: max(values) for side, values in rates.items()} for size, rates in found.items()}
    result: dict[str, Any] = {
        "model": options.model,
        "images_per_second": best,
        "ratio": {
            size: max(v for side, v in rates.items() if side.startswith("ours"))
            / max(v for side, v in rates.items() if side.startswith("torch"))
            for size, rates in best.items()
        },
        "turns": found,
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'images/s, pixels a side':34}" + "".join(f"{size:>9}" for size in best))
    for side in SIDES:
        print(f"{side:34}" + "".join(f"{rates[side]:9,.0f}" for rates in best.values()))
    print(f"{'ours over the best of torch':34}" + "".join(f"{ratio:9.2f}" for ratio in result["ratio"].values()))


if __name__ == "__main__":
    main()
