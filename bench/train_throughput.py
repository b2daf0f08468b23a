"""Training throughput of the compact CNN: ours, a textbook PyTorch loop, and Keras on TensorFlow where it is installed;
and how close fastnet comes to the machine's rate of matrix products.

    python bench/train_throughput.py [--data SRC] [--seconds 8] [--turns 3] [--json]

Every side trains the network and the augmentation of recipes/compact.toml on the same images, in a process of its
own, and they take turns; each side's best turn counts, since other work on the machine only ever slows one down. The
textbook loop is Dataset, DataLoader with a worker a core, torchvision's transforms on each image, eager float32 NCHW,
batches of 256 (and of 64, our recipe's, beside it). Writes bench/results/train_throughput.json.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lucidate.core import machine
from lucidate.core.errors import Interrupted, LucidateError
from lucidate.core.progress import Silent
from lucidate.core.recipe import load_recipe
from lucidate.data.pack import open_pack

RESULT = Path(__file__).with_name("results") / "train_throughput.json"
SIDE = 32  # pixels, to which other images are brought
WARM_UP = 1.5  # seconds of steps that are not counted


def measured(step: Callable[[], int], seconds: float) -> float:
    """Images a second of `step`, which trains on one batch and returns its size."""
    start = time.perf_counter()
    while time.perf_counter() - start < WARM_UP:
        step()
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        images += step()
    return images / (time.perf_counter() - start)


def ours(recipe_name: str, source: str, seconds: float, precision: str | None = None) -> float:
    """The engine's own loop, stopped when its time is over."""
    from lucidate.cli.process import tune_process

    tune_process()
    import torch

    from lucidate.data.batches import prepare
    from lucidate.models.build import build, to_device
    from lucidate.training.loop import Training, train_model
    from lucidate.training.precision import choose_precision

    overrides = ["train.epochs=1000", f"data.image_size={SIDE}"] + (
        [f"train.precision={precision}"] if precision else []
    )
    recipe = load_recipe(recipe_name, source=source, overrides=overrides)
    dataset = prepare(recipe)
    device = torch.device("cpu")
    model = to_device(build(recipe.model, len(dataset.pack.class_names)), device)
    side = dataset.pack.image_size
    chosen = choose_precision(recipe, model, image_size=side, device=device, reporter=Silent())
    moments: list[float] = []

    def stop() -> bool:
        moments.append(time.perf_counter())
        return moments[-1] - moments[0] > WARM_UP + seconds

    batches = dataset.batches("train", batch_size=recipe.train.batch_size)
    batches = replace(batches, rows=np.resize(batches.rows, 1_000_000))  # one epoch that does not end while it is timed
    with contextlib.suppress(Interrupted):
        train_model(
            model,
            Training(
                batches=batches,
                validation=dataset.batches("validation", batch_size=128),
                recipe=recipe,
                flips=dataset.pack.flips,
                reporter=Silent(),
                stop=stop,
                precision=chosen,
            ),
        )
    counted = [moment for moment in moments if moment - moments[0] > WARM_UP]
    return (len(counted) - 1) * recipe.train.batch_size / (counted[-1] - counted[0])


def textbook(source: str, seconds: float, batch: int) -> float:
    """What a PyTorch tutorial does."""
    from lucidate.models.timm import declare_missing_operators

    declare_missing_operators()
    import torch
    from torch import nn, optim
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from lucidate.data.batches import prepare
    from lucidate.models.build import build

    recipe = load_recipe("compact", source=source, overrides=[f"data.image_size={SIDE}"])
    dataset = prepare(recipe)
    augment = recipe.augment
    steps: list[Any] = [transforms.ToPILImage()]
    if dataset.pack.flips:
        steps.append(transforms.RandomHorizontalFlip())
    steps.append(
        transforms.RandomAffine(
            degrees=augment.rotation * 360,
            scale=(1 - augment.zoom, 1 + augment.zoom),
            interpolation=transforms.InterpolationMode.BILINEAR,
        )
    )
    steps += [transforms.ToTensor(), transforms.Normalize(dataset.preprocess.mean, dataset.preprocess.std)]
    change = transforms.Compose(steps)

    class Images(Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return len(dataset.splits.train)

        def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
            row = dataset.splits.train[place]
            return change(dataset.pack.images[row]), int(dataset.pack.labels[row])

    loader = DataLoader(Images(), batch_size=batch, shuffle=True, num_workers=os.cpu_count() or 1, drop_last=True)
    model = build(recipe.model, len(dataset.pack.class_names)).train()
    optimizer = optim.Adam(model.parameters(), lr=recipe.train.lr)
    loss_of = nn.CrossEntropyLoss()

    def forever() -> Any:
        while True:
            yield from loader

    batches = forever()

    def step() -> int:
        images, labels = next(batches)
        optimizer.zero_grad()
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        return len(labels)

    return measured(step, seconds)


def keras(source: str, seconds: float) -> float:
    """The same network and recipe in Keras on TensorFlow: tf.data, augmentation layers in the model, batches of 64."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow as tf
    from keras import layers

    from lucidate.data.batches import prepare

    recipe = load_recipe("compact", source=source, overrides=[f"data.image_size={SIDE}"])
    dataset = prepare(recipe)
    rows, size, augment = dataset.splits.train, recipe.train.batch_size, recipe.augment
    stack: list[Any] = [keras.Input((dataset.pack.image_size, dataset.pack.image_size, 3))]
    if dataset.pack.flips:
        stack.append(layers.RandomFlip("horizontal"))
    stack += [layers.RandomRotation(augment.rotation), layers.RandomZoom(augment.zoom), layers.Rescaling(1 / 255)]
    for width, rate in zip((32, 64, 128), (0.25, 0.30, 0.40), strict=True):
        for _ in range(2):
            stack.append(layers.Conv2D(width, 3, padding="same", use_bias=False))
            stack += [layers.BatchNormalization(), layers.ReLU()]
        stack += [layers.MaxPooling2D(), layers.Dropout(rate)]
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(256, activation="relu"), layers.Dropout(0.5)]
    stack.append(layers.Dense(len(dataset.pack.class_names), activation="softmax"))
    model = keras.Sequential(stack)
    model.compile(optimizer=keras.optimizers.Adam(recipe.train.lr), loss="sparse_categorical_crossentropy")
    images, labels = dataset.pack.images[rows], dataset.pack.labels[rows]
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(10_000).repeat().batch(size).prefetch(2)

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.moments: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.moments.append(time.perf_counter())
            if self.moments[-1] - self.moments[0] > WARM_UP + seconds:
                self.model.stop_training = True

    clock = Clock()
    model.fit(data, steps_per_epoch=len(rows) // size, epochs=1, verbose=0, callbacks=[clock])
    counted = [moment for moment in clock.moments if WARM_UP < moment - clock.moments[0] <= WARM_UP + seconds]
    return (len(counted) - 1) * size / (counted[-1] - counted[0])


def products(precision: str) -> float:
    """GFLOP/s of square matrix products, the best of several sizes."""
    import torch

    best, kind = 0.0, getattr(torch, precision)
    for size in (1024, 2048, 3072):
        matrix = torch.randn(size, size, dtype=kind)
        for _ in range(6):
            start = time.perf_counter()
            matrix @ matrix
            best = max(best, 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return best


def training_gflop(recipe_name: str) -> float:
    """GFLOP that training on one image takes: products of convolutions and dense layers, forward and backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lucidate.models.build import build, to_device

    recipe = load_recipe(recipe_name)
    model = to_device(build(recipe.model, 10), "cpu").train()
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)).sum().backward()
    return float(counter.get_total_flops()) / 4 / 1e9


def fastnet(source: str, seconds: float, precision: str) -> dict[str, float]:
    """recipes/fast.toml in one precision, and its share of the rate of matrix products in the same precision."""
    rate, top, work = ours("fast", source, seconds, precision), products(precision), training_gflop("fast")
    return {"images_per_second": rate, "gflops": rate * work, "matmul_gflops": top, "share": rate * work / top}


def in_a_process(side: str, source: str, seconds: float) -> Any:
    """One turn of one side, alone in a process."""
    command = [sys.executable, __file__, "--side", side, "--data", source, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


SIDES: dict[str, Callable[[str, float], Any]] = {
    "ours": lambda source, seconds: ours("compact", source, seconds),
    "textbook": lambda source, seconds: textbook(source, seconds, 256),
    "textbook_64": lambda source, seconds: textbook(source, seconds, 64),
    "keras": keras,
}
PRECISIONS = ("float32", "bfloat16")
for _precision in PRECISIONS:
    SIDES[f"fastnet_{_precision}"] = lambda source, seconds, name=_precision: fastnet(source, seconds, name)


def at_hand() -> str:
    """The images to train on where none are named. Throughput depends on their size alone, which is made the same."""
    try:
        open_pack("cifar10", reporter=Silent())
    except LucidateError as error:
        print(f"{error}\nusing digits, enlarged to {SIDE} pixels", file=sys.stderr)
        return "digits"
    return "cifar10"


def compare(source: str, seconds: float, turns: int) -> dict[str, Any]:
    """All sides in turn, and their ratios."""
    names = [name for name in SIDES if name != "keras" or importlib.util.find_spec("tensorflow")]
    rates: dict[str, list[Any]] = {name: [] for name in names}
    for turn in range(turns):
        for name in names:
            rates[name].append(in_a_process(name, source, seconds))
            print(f"turn {turn + 1}/{turns}, {name}: {rates[name][-1]}", file=sys.stderr, flush=True)
    plain = {name: max(values) for name, values in rates.items() if not name.startswith("fastnet")}
    nets = {
        name.removeprefix("fastnet_"): max(values, key=lambda value: value["images_per_second"])
        for name, values in rates.items()
        if name.startswith("fastnet")
    }
    best = max(nets.values(), key=lambda value: value["images_per_second"])
    return {
        "images_per_second": plain["ours"],
        "ratio_textbook": plain["ours"] / plain["textbook"],
        "ratio_textbook_64": plain["ours"] / plain["textbook_64"],
        "ratio_keras": plain["ours"] / plain["keras"] if "keras" in plain else None,
        "share_of_matmul": best["share"],
        "fastnet": nets,
        "turns": rates,
        "data": source if not Path(source).exists() else Path(source).name,
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="cifar10 or a path; default: cifar10, or digits where it is not at hand")
    parser.add_argument("--seconds", type=float, default=8.0, help="of counted training a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options.data, options.seconds)))
        return
    result = compare(options.data or at_hand(), options.seconds, options.turns)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(result))
        return
    keras_ratio = f"{result['ratio_keras']:.2f}" if result["ratio_keras"] else "not installed"
    print(
        f"compact: {result['images_per_second']:,.0f} images/s; {result['ratio_textbook']:.2f} × the textbook loop, "
        f"Keras on TensorFlow: {keras_ratio}\nfastnet: {result['share_of_matmul']:.0%} of the rate of matrix products"
    )


if __name__ == "__main__":
    main()
