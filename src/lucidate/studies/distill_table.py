"""Finished students and their teacher → the table of what the teacher brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lucidate.analysis.statistics import mean_over_images, mean_over_seeds
from lucidate.analysis.studies import HEADINGS, RIGHT, Distillation, Variant, variant
from lucidate.core.errors import ExportError, RunError
from lucidate.core.progress import Reporter
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.packed import read_rows
from lucidate.export.exporter import export_run
from lucidate.export.onnx import export_onnx
from lucidate.export.quantize import SIZES, quantize_run, race
from lucidate.models.checkpoint import load_model
from lucidate.models.onnx_session import OnnxPredictor
from lucidate.models.predictor import InferenceConfig, TorchPredictor
from lucidate.predict.backends import graph_path, is_stale, predictions_path
from lucidate.predict.loop import predict_rows, table_of
from lucidate.studies.distill_plan import Plan, same_images
from lucidate.training.teacher import class_order

FEW = 3  # errors on the test split
TEACHER = "teacher.onnx"  # beside the students, where the teacher's own folder has none


def distillation_table(
    plan: Plan,
    out: Path,
    alone: Sequence[RunDir],
    taught: Sequence[RunDir],
    *,
    device: torch.device,
    reporter: Reporter,
) -> Distillation:
    """The table of finished students, by seeds. Graphs that are missing are made; times are taken anew."""
    tables = [[Predictions.load(run.predictions("test")) for run in runs] for runs in (alone, taught)]
    accuracies = [[table.accuracy for table in kind] for kind in tables]
    before, after = (np.stack([table.correct for table in kind]) for kind in tables)
    first, notes = tables[0][0], list(plan.notes)
    files: dict[str, Path] = {}
    graphs: dict[str, OnnxPredictor] = {}
    small: list[float] = []
    try:
        small = [int8_accuracy(run, reporter=reporter) for run in taught]
        files["int8"] = graph_path(taught[0], "onnx-int8")
        graphs["int8"] = OnnxPredictor(files["int8"])
    except ExportError as error:
        notes.append(f"No student in int8: {error}")
    for name, run in (("teacher", plan.teacher), ("student", taught[0])):
        try:
            files[name] = graph_of(run, out if name == "teacher" else run.exports, reporter=reporter)
            graphs[name] = OnnxPredictor(files[name])
        except (ExportError, RunError) as error:  # no such form, or one that ONNX Runtime cannot run
            notes.append(f"No ONNX file of the {name}: {error}")
    shown = read_rows(plan.dataset.pack.images, np.resize(first.index, SIZES[-1]))
    taken = race(graphs, shown)

    def row(name: str, of_seeds: Sequence[float], card: RunCard, *, graph: str) -> Variant:
        return variant(
            name,
            model=card.model.name,
            accuracies=tuple(of_seeds),
            images=len(first),
            parameters=card.model.parameters,
            bytes_=files[graph].stat().st_size if graph in graphs else None,
            milliseconds=taken[graph]["1"] if graph in graphs else None,
        )

    if (wrong := float((~before).sum(1).mean())) <= FEW:
        notes.append(
            f"Alone, the student errs on {wrong:.1f} of {len(first):,} test images: next to nothing is left to teach "
            "it. A smaller student, or fewer training images, would show what a teacher brings."
        )
    card = RunCard.load(taught[0].card)
    own = teacher_accuracy(plan, out, first, device=device, reporter=reporter)
    rows = [
        row("teacher", [own], plan.card, graph="teacher"),
        row("student alone", accuracies[0], card, graph="student"),  # another one's weights, but the same network
        row("student distilled", accuracies[1], card, graph="student"),
    ]
    if small:
        rows.append(row("student distilled, int8", small, card, graph="int8"))
    return Distillation(
        rows=tuple(rows),
        seeds=plan.seeds,
        by_seeds=mean_over_seeds([two - one for one, two in zip(*accuracies, strict=True)]),
        by_images=mean_over_images(before, after),
        test_images=len(first),
        notes=tuple(notes),
    )


def int8_accuracy(run: RunDir, *, reporter: Reporter) -> float:
    """A student's on the test split once it is in int8, which it is brought to unless it was. Raises ExportError."""
    graph, answers = graph_path(run, "onnx-int8"), predictions_path(run, "test", "onnx-int8")
    if graph.exists() and answers.exists() and not is_stale(graph, run):
        return Predictions.load(answers).accuracy
    reporter.say(f"{run.path.name}: to int8")
    with run.lock():
        return quantize_run(run, reporter=reporter).accuracy_int8


def graph_of(run: RunDir, folder: Path, *, reporter: Reporter) -> Path:
    """A run's graph: the one that it has, else one in `folder`, made unless it is there. Raises ExportError."""
    for path in (graph_path(run, "onnx"), folder / TEACHER):
        if path.exists() and not is_stale(path, run):
            return path
    if folder == run.exports:
        with run.lock():
            return export_run(run, "onnx", reporter=reporter).path
    reporter.say(f"writing {folder / TEACHER}")
    export_onnx(run, folder / TEACHER)  # for its time and size alone: not proven, as what is to be used would be
    return folder / TEACHER


def teacher_accuracy(plan: Plan, out: Path, judged: Predictions, *, device: torch.device, reporter: Reporter) -> float:
    """The teacher's on the students' test images: as it predicted them in its own run, else predicted here."""
    card, pack = plan.card, plan.dataset.pack
    known = [out / "teacher.parquet", *([plan.teacher.predictions("test")] if same_images(card, pack) else [])]
    for path in known:
        if path.exists() and set((own := Predictions.load(path)).ids.tolist()) == set(judged.ids.tolist()):
            return own.accuracy
    order = class_order(card, pack.class_names)
    config = replace(InferenceConfig.of_run(card), order=order)
    predictor = TorchPredictor(load_model(plan.teacher, device=device), config, device=device)
    rows = judged.index
    logits = predict_rows(predictor, pack.images, rows, reporter=reporter, task="predicting test, the teacher")
    own = table_of(pack, rows, logits, split="test", model=card.recipe.model.name)
    own.save(out / "teacher.parquet")
    return own.accuracy


def markdown(table: Distillation, *, title: str) -> str:
    """The table and what must be known of it, as a page."""
    if len(table.seeds) > 1:
        shown = f"mean ± standard deviation over seeds {', '.join(map(str, table.seeds))}"
        intervals = (
            "The students' intervals are of the mean over other seeds (Student's t), the teacher's is of other images "
            "(Wilson)."
        )
    else:
        shown, intervals = f"seed {table.seeds[0]}", "Intervals are of other images (Wilson)."
    lines = [
        f"# {title}",
        "",
        table.headline,
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'|'.join('---:' if name in RIGHT else '---' for name in HEADINGS)}|",
        *(f"| {' | '.join(row.cells())} |" for row in table.rows),
        "",
        f"Test accuracy on {table.test_images:,} images, {shown}. {intervals} One image: milliseconds of a call of "
        "ONNX Runtime on this machine, the best of turns that the graphs took.",
        "",
        "```",
        *table.arrows(),
        "```",
    ]
    lines += [line for note in table.notes for line in ("", note)]
    return "\n".join(lines) + "\n"
