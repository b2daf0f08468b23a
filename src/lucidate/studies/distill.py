"""Train students of one recipe alone and taught by a trained model, and measure what the teacher brings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lucidate.analysis.statistics import mean_over_images, mean_over_seeds
from lucidate.analysis.studies import HEADINGS, RIGHT, Distillation, Variant, variant
from lucidate.core.atomic import atomic_write
from lucidate.core.errors import ExportError, RunError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import Predictions, RunCard, jsonable
from lucidate.core.run import RunDir, begin_study
from lucidate.data.packed import read_rows
from lucidate.export.exporter import export_run
from lucidate.export.onnx import export_onnx
from lucidate.export.quantize import SIZES, quantize_run, race
from lucidate.models.build import default_device
from lucidate.models.checkpoint import load_model
from lucidate.models.onnx_session import OnnxPredictor
from lucidate.models.predictor import InferenceConfig, TorchPredictor
from lucidate.predict.backends import graph_at, graph_path, predictions_path
from lucidate.predict.infer import predict_rows, table_of
from lucidate.studies.distill_plan import Plan, make_plan, same_images
from lucidate.training.job import complete
from lucidate.training.teacher import class_order
from lucidate.training.trainer import TrainJob

RESULT = "distill.json"
TABLE = "distill.md"
ALONE, TAUGHT = "alone", "distilled"  # names of the students' folders, before their seed
FEW = 3  # errors on the test split
TEACHER = "teacher.onnx"  # beside the students, where the teacher's own folder has none


def distill_run(
    teacher: RunDir,
    recipe: str | Path,
    out: Path,
    *,
    seeds: int = 3,
    source: str | None = None,
    overrides: Sequence[str] = (),
    device: torch.device | None = None,
    command: str = "",
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Distillation:
    """Train `seeds` students of a recipe alone, and as many by a teacher's answers, each in a folder of its own.

    recipe: a file, or the name of a shipped one; its [distill] says how. source, overrides: as of a training. Students
    share the teacher's images and their division unless these say otherwise. What an earlier call with the same
    arguments has finished stands; what it has begun, goes on. stop: asked after each step of a training; True saves and
    raises Interrupted. The table is in `RESULT` and `TABLE`, too. Raises RecipeError, RunError, SourceError.
    """
    if not (out / RESULT).exists():
        RunDir.free(out)
    reporter, device = reporter or Silent(), device or default_device()
    plan = make_plan(teacher, recipe, seeds=seeds, source=source, overrides=overrides, reporter=reporter)
    begin_study(out / RESULT, asked(plan), what="the distillation", sections=unchanging)
    students: dict[str, list[RunDir]] = {ALONE: [], TAUGHT: []}
    precision = None
    for seed in plan.seeds:
        for kind, runs in students.items():
            run = RunDir(out / f"{kind}-{seed}")
            reporter.say(f"{run.path.name} ({sum(map(len, students.values())) + 1} of {2 * len(plan.seeds)})")
            taught = kind == TAUGHT
            student = plan.recipe_of(seed, taught=taught, precision=precision)
            job = TrainJob(student, run, plan.dataset, device, command, plan.teacher if taught else None)
            complete(job, reporter=reporter, stop=stop)
            precision = RunCard.load(run.card).precision  # of the first one: where it was probed, others might differ
            runs.append(run)
    table = distillation_table(plan, out, students[ALONE], students[TAUGHT], device=device, reporter=reporter)
    answer = {**asked(plan), "headline": table.headline, "gain": table.gain, "p": table.p, **jsonable(table)}
    atomic_write(out / RESULT, json.dumps(answer, indent=1, allow_nan=False).encode())
    atomic_write(out / TABLE, markdown(table, title=f"{plan.card.name} as a teacher").encode())
    return table


def asked(plan: Plan) -> dict[str, Any]:
    """What a distillation goes on with: other seeds may be added to it, nothing else may change."""
    return {
        "teacher": {"path": str(plan.teacher.path), "name": plan.card.name, "model": plan.card.model.name},
        # What the checksum of its weights, which the recipe holds, does not cover.
        "answers": {
            "classes": list(plan.card.classes),
            "preprocess": plan.card.preprocess,
            "model": plan.card.recipe.model.model_dump(mode="json"),
        },
        "recipe": plan.recipe.model_dump(mode="json"),
        "pack": plan.dataset.pack.hash,
    }


def unchanging(answer: dict[str, Any]) -> dict[str, Any]:
    """What must be the same, by section, for a distillation to go on; where its images lie may differ."""
    recipe = answer["recipe"]
    data = {key: value for key, value in recipe["data"].items() if key != "source"}
    return {**recipe, "data": data, "images": answer["pack"], "teacher": answer["answers"]}


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
            files[name] = graph_of(run, aside=out / TEACHER if name == "teacher" else None, reporter=reporter)
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
    if answers.exists() and graph_at(graph, run):
        return Predictions.load(answers).accuracy
    reporter.say(f"{run.path.name}: to int8")
    with run.lock():
        return quantize_run(run, reporter=reporter).accuracy_int8


def graph_of(run: RunDir, *, aside: Path | None, reporter: Reporter) -> Path:
    """A run's graph, made unless it is there: in the run or, where that is not ours, aside. Raises ExportError."""
    for path in (graph_path(run, "onnx"), aside):
        if path and graph_at(path, run):
            return path
    if aside is None:
        with run.lock():
            return export_run(run, "onnx", reporter=reporter).path
    reporter.say(f"writing {aside}")
    export_onnx(run, aside)  # for its time and size alone: not proven, as what is to be used would be
    return aside


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
