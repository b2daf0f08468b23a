"""A run in int8: chosen on validation images, judged once on the test images, beside the float graph it comes from."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lucidate.analysis.statistics import mcnemar, paired_interval
from lucidate.core.atomic import atomic_write
from lucidate.core.errors import ExportError
from lucidate.core.machine import hardware, versions
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import Predictions, RunCard, jsonable
from lucidate.core.run import RunDir
from lucidate.data.packed import read_rows
from lucidate.data.splits import RunData, open_data
from lucidate.export.exporter import export_run
from lucidate.export.int8_choice import CalibrationSet, Trial, choose, loss, maker_for
from lucidate.export.int8_graph import prepared
from lucidate.export.onnx import with_metadata
from lucidate.export.parity import call_times
from lucidate.export.torch_program import require_own
from lucidate.models.onnx_session import OnnxPredictor, usable_cores
from lucidate.predict.backends import find_graph, graph_path, predictions_path
from lucidate.predict.infer import predict_rows, table_of

BUDGET = 0.3  # points
RECORD = "quantize.json"
SIZES = (1, 32)  # images a call whose time is taken
RACE_SECONDS, MOST = 4.0, 30  # of a race for each of them; turns
VNNI = ("avx512_vnni", "avx_vnni")  # as /proc/cpuinfo calls the instructions for sums of int8 products


@dataclass(frozen=True)
class Flip:
    """A test image that int8 gives another class. from_, to: what the float graph and the int8 one say."""

    id: str
    true: str
    from_: str
    to: str


@dataclass(frozen=True, eq=False)
class Quantized:
    """An int8 graph beside its float one, both on the test split.

    accuracy_fp32, accuracy_int8: 0 to 1. change: in points; interval: of it, 95 %, paired; p: McNemar's, exact.
    bytes_fp32, bytes_int8: of the files. latency_ms: milliseconds a call by graph and number of images, the best of
    turns. views: inside both. method: "static-" and how ranges were cut, or "dynamic". left_in_float: layers that the
    budget kept from int8. always_float: those that int8 never takes, such as the first one. within_budget: whether
    validation lost no more than the budget. validation: accuracies, change and all that was tried.
    """

    path: Path
    accuracy_fp32: float
    accuracy_int8: float
    change: float
    interval: tuple[float, float]
    p: float
    flips: tuple[Flip, ...]
    bytes_fp32: int
    bytes_int8: int
    latency_ms: dict[str, dict[str, float]]
    images: int
    split: str
    views: str
    method: str
    layers: int
    left_in_float: tuple[str, ...]
    always_float: tuple[str, ...]
    budget: float
    within_budget: bool
    validation: dict[str, Any]
    hardware: dict[str, Any]

    @property
    def right_to_wrong(self) -> int:
        return sum(flip.from_ == flip.true for flip in self.flips)

    @property
    def wrong_to_right(self) -> int:
        return sum(flip.to == flip.true for flip in self.flips)

    def speedup(self, images: int = SIZES[-1]) -> float:
        """How many times as fast as the float graph a call with so many images is."""
        return self.latency_ms["fp32"][str(images)] / self.latency_ms["int8"][str(images)]


def quantize_run(run: RunDir, *, budget: float = BUDGET, reporter: Reporter | None = None) -> Quantized:
    """Write `export/model.int8.onnx` and `export/quantize.json`, and the int8 answers on the test split as predictions.

    It is made from `export/model.onnx`, which is exported if it is missing or of other weights. budget: points of
    accuracy that may be lost on validation. Raises LucidateError where the run's images are not at hand.
    """
    reporter = reporter or Silent()
    if not budget >= 0:
        raise ExportError(f"--budget: expected points of accuracy, 0 or more, received {budget:g}")
    card = RunCard.load(run.card)
    require_own(card)
    data = open_data(run, reporter=reporter)
    pack, splits = data.pack, data.splits
    if find_graph("onnx", run) is None:  # exported, and of these weights
        export_run(run, "onnx", reporter=reporter)
    content = graph_path(run, "onnx").read_bytes()
    exact = OnnxPredictor(content)
    floats = prepared(content)
    if not floats.layers:
        raise ExportError("quantize: expected a model with layers that int8 can compute, received one without")
    rows = splits.validation
    said = predict_rows(exact, pack.images, rows, reporter=reporter, task="asking float32")
    seen = CalibrationSet(pack.images, rows, pack.labels[rows], said)
    vnni = has_vnni()
    reduce_range = platform.machine().lower() in ("x86_64", "amd64") and not vnni
    make = maker_for(floats, seen, reduce_range=reduce_range, reporter=reporter)
    best, tried = choose(floats, make, seen, budget=budget, reporter=reporter)
    names = {layer.node: layer.name for layer in floats.layers}
    left = tuple(names[node] for node in names if node in best.left)
    method = best.method if floats.mode == "dynamic" else f"{floats.mode}-{best.method}"
    about = {
        "method": method,
        "weights": "int8, symmetric, a scale a channel" + (", 7 bits" if reduce_range else ""),
        "left_in_float": left,
        "lost_on_validation": loss(seen, best),
    }
    int8 = with_metadata(best.content, {"quantized": json.dumps(about)})
    quantized = OnnxPredictor(int8)
    card = card.with_results(test_openings=card.results.test_openings + 1)
    card.save(run.card)
    before, after = (
        _answers(graph, data, card, reporter, f"test, {kind}")
        for graph, kind in ((exact, "float32"), (quantized, "int8"))
    )
    path = graph_path(run, "onnx-int8")
    broken, fixed = int((before.correct & ~after.correct).sum()), int((~before.correct & after.correct).sum())
    low, high = paired_interval(broken, fixed, len(before))
    classes, said_by = np.array(before.class_names), (before.labels, before.predicted, after.predicted)
    flipped = np.flatnonzero(before.predicted != after.predicted)
    flips = tuple(Flip(str(before.ids[row]), *(str(classes[table[row]]) for table in said_by)) for row in flipped)
    result = Quantized(
        path=path,
        accuracy_fp32=before.accuracy,
        accuracy_int8=after.accuracy,
        change=100 * (after.accuracy - before.accuracy),
        interval=(100 * float(low), 100 * float(high)),
        p=mcnemar(broken, fixed),
        flips=flips,
        bytes_fp32=len(content),
        bytes_int8=len(int8),
        latency_ms=race({"fp32": exact, "int8": quantized}, read_rows(pack.images, np.resize(splits.test, SIZES[-1]))),
        images=len(before),
        split="test",
        views=exact.views,
        method=method,
        layers=len(floats.layers) - len(left),
        left_in_float=left,
        always_float=floats.always_float,
        budget=budget,
        within_budget=loss(seen, best) <= budget,
        validation=_validation(seen, best, tried, names),
        hardware={**hardware(), "vnni": vnni, "threads": usable_cores()},
    )
    table = predictions_path(run, "test", "onnx-int8")
    table.unlink(missing_ok=True)  # never the answers of another graph beside this one
    atomic_write(path, int8)
    atomic_write(run.exports / RECORD, json.dumps(_record(result), indent=1, allow_nan=False).encode())
    after.save(table)
    return result


def has_vnni() -> bool:
    """Whether the processor sums products of int8 in one instruction; False where the system does not tell."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return any(name in flags for name in VNNI)


def race(graphs: dict[str, OnnxPredictor], images: NDArray[np.uint8]) -> dict[str, dict[str, float]]:
    """Milliseconds a call, each graph's best of taking turns, by graph and number of images, of 32 or more."""
    found: dict[str, dict[str, float]] = {name: {} for name in graphs}
    for size in SIZES:
        for name, times in call_times(graphs, images[:size], seconds=RACE_SECONDS, most=MOST).items():
            found[name][str(size)] = min(times)
    return found


def summary(result: Quantized) -> dict[str, Any]:
    """The result as plain values, flips counted."""
    counted = {
        "path": str(result.path),
        "flips": len(result.flips),
        "right_to_wrong": result.right_to_wrong,
        "wrong_to_right": result.wrong_to_right,
        "speedup": result.speedup(),
        "speedup_one_image": result.speedup(SIZES[0]),
    }
    plain: dict[str, Any] = jsonable({**vars(result), **counted})
    return plain


def _record(result: Quantized) -> dict[str, Any]:
    """What quantize.json holds: the summary, and each image that flipped."""
    flipped = [{"id": one.id, "true": one.true, "from": one.from_, "to": one.to} for one in result.flips]
    engine = {**versions(), "onnxruntime": onnxruntime.__version__}
    return jsonable({**summary(result), "path": result.path.name, "versions": engine, "flipped": flipped})


def _answers(graph: OnnxPredictor, data: RunData, card: RunCard, reporter: Reporter, task: str) -> Predictions:
    rows = data.splits.test
    logits = predict_rows(graph, data.pack.images, rows, reporter=reporter, task=task)
    return table_of(data.pack, rows, logits, split="test", model=f"{card.recipe.model.name} (onnx-int8)")


def _validation(seen: CalibrationSet, best: Trial, tried: tuple[Trial, ...], names: dict[str, str]) -> dict[str, Any]:
    return {
        "images": len(seen.rows),
        "accuracy_fp32": seen.accuracy,
        "accuracy_int8": best.accuracy,
        "change": -loss(seen, best),
        "tried": [
            {
                "method": one.method,
                "left_in_float": [name for node, name in names.items() if node in one.left],
                "accuracy": one.accuracy,
                "change": -loss(seen, one),
                "flips": one.flips,
            }
            for one in tried
        ],
    }
