"""How fast does a run's model answer? torch, torch.compile, ONNX Runtime in float32 and int8, OpenVINO if installed.

    lucidate quantize RUN && python bench/inference.py RUN [--turns 5] [--seconds 1] [--no-compile] [--json]

Every side takes raw pixels of test images and gives logits, views of the recipe included, by as many threads as there
are cores. All stand in one process and take turns at each batch size; each side's quickest call counts, since other
work on the machine only ever slows one down. Puts the run's entry into bench/results/inference.json; other runs'
entries stay.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucidate.cli.process import tune_process
from lucidate.core import machine
from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.packed import read_rows
from lucidate.data.preprocess import Preprocess

RESULT = Path(__file__).with_name("results") / "inference.json"
BATCHES = (1, 32, 256)
Answer = Callable[[NDArray[np.uint8]], Any]


def sides(run: RunDir, *, compiled: bool) -> dict[str, Answer]:
    """What answers, by name. Raises ExportError where a graph has not been made yet."""
    import torch

    from lucidate.models.checkpoint import load_predictor
    from lucidate.models.onnx_session import usable_cores
    from lucidate.predict.backends import graph_path, open_predictor

    torch.set_num_threads(usable_cores())
    found: dict[str, Answer] = {"torch": load_predictor(run)}
    if compiled:
        quick = load_predictor(run)
        quick.module.model = torch.compile(quick.module.model)  # type: ignore[assignment]
        found["torch.compile"] = quick
    found |= {name: open_predictor(name, run) for name in ("onnx", "onnx-int8")}
    if importlib.util.find_spec("openvino"):
        found |= {
            name: openvino(graph_path(run, graph), usable_cores())
            for name, graph in (("openvino", "onnx"), ("openvino-int8", "onnx-int8"))
        }
    return found


def openvino(path: Path, threads: int) -> Answer:
    """The same graph by OpenVINO, set up for latency."""
    from openvino import Core

    compiled = Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})
    return lambda images: compiled({"images": images})["logits"]


def raced(
    answers: dict[str, Answer], images: NDArray[np.uint8], *, turns: int, seconds: float
) -> dict[str, list[float]]:
    """Images a second of each side in its quickest call, a turn after another."""
    rates: dict[str, list[float]] = {name: [] for name in answers}
    for answer in answers.values():
        answer(images)  # sets up, and compiles
    for _ in range(turns):
        for name, answer in answers.items():
            begin = time.perf_counter()
            quickest = float("inf")
            while time.perf_counter() - begin < seconds or quickest == float("inf"):
                start = time.perf_counter()
                answer(images)
                quickest = min(quickest, time.perf_counter() - start)
            rates[name].append(len(images) / quickest)
    return rates


def measure(run: RunDir, *, turns: int, seconds: float, compiled: bool) -> dict[str, Any]:
    """The entry of a run."""
    from lucidate.export.parity import eval_images

    card = RunCard.load(run.card)
    size = Preprocess.from_dict(card.preprocess).size
    answers = sides(run, compiled=compiled)
    shown = eval_images(run)  # int8 is made for images such as these, and clips others
    pixels = read_rows(shown.store, np.resize(shown.rows, max(BATCHES)))
    expected = np.asarray(answers["torch"](pixels[:32]))
    for name, answer in answers.items():  # whoever is fast must still be right
        differing = float(np.abs(np.asarray(answer(pixels[:32])) - expected).max()) / float(np.ptp(expected))
        if differing > (0.2 if "int8" in name else 1e-3):
            raise LucidateError(
                f"{name}: expected the logits of torch, received others ({differing:.1%} of their range)"
            )
    rates = {}
    for batch in BATCHES:
        rates[str(batch)] = raced(answers, pixels[:batch], turns=turns, seconds=seconds)
        print(f"batch {batch}: done", file=sys.stderr, flush=True)
    best = {batch: {name: max(values) for name, values in found.items()} for batch, found in rates.items()}
    return {
        "model": card.recipe.model.name,
        "values": card.model.values,
        "image_size": size,
        "views": card.recipe.predict.views,
        "images_per_second": best,
        "int8_over_onnx": {batch: found["onnx-int8"] / found["onnx"] for batch, found in best.items()},
        "onnx_over_torch": {batch: found["onnx"] / found["torch"] for batch, found in best.items()},
        "turns": rates,
        "hardware": machine.hardware(),
        "versions": machine.versions() | engines(),
        "commit": machine.commit(),
    }


def engines() -> dict[str, str]:
    """Versions of what computes beside torch."""
    from importlib.metadata import version

    return {name: version(name) for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)}


def table(entry: dict[str, Any]) -> str:
    """Images a second: a line a side, a column a batch size."""
    rates = entry["images_per_second"]
    lines = [f"{'images/s, batch of':18}" + "".join(f"{batch:>9}" for batch in BATCHES)]
    lines += [f"{name:18}" + "".join(f"{rates[str(batch)][name]:9,.0f}" for batch in BATCHES) for name in rates["1"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder, quantized")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes a minute")
    parser.add_argument("--json", action="store_true", help="print the entry as one JSON object")
    options = parser.parse_args()
    tune_process()
    try:
        entry = measure(
            RunDir.open(options.run), turns=options.turns, seconds=options.seconds, compiled=not options.no_compile
        )
    except LucidateError as error:
        sys.exit(f"error: {error}")
    results = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    results[options.run.resolve().name] = entry
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(entry) if options.json else table(entry))


if __name__ == "__main__":
    main()
