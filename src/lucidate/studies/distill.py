"""Train students of one recipe alone and taught by a trained model, and measure what the teacher brings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lucidate.analysis.studies import Distillation
from lucidate.core.atomic import atomic_write
from lucidate.core.errors import RunError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard, jsonable
from lucidate.core.run import RunDir
from lucidate.models.build import default_device
from lucidate.studies.distill_plan import Plan, make_plan
from lucidate.studies.distill_table import distillation_table, markdown
from lucidate.training.job import TrainJob, complete

RESULT = "distill.json"
TABLE = "distill.md"
ALONE, TAUGHT = "alone", "distilled"  # names of the students' folders, before their seed


@dataclass(frozen=True)
class Distilled:
    """The table, and the file in which it is written."""

    table: Distillation
    written: Path


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
) -> Distilled:
    """Train `seeds` students of a recipe alone, and as many by a teacher's answers, each in a folder of its own.

    recipe: a file, or the name of a shipped one; its [distill] says how. source, overrides: as of a training. Students
    share the teacher's images and their division unless these say otherwise. What an earlier call with the same
    arguments has finished stands; what it has begun, goes on. stop: asked after each step of a training; True saves and
    raises Interrupted. Raises RecipeError, RunError, SourceError.
    """
    if not (out / RESULT).exists():
        RunDir.free(out)
    reporter, device = reporter or Silent(), device or default_device()
    plan = make_plan(teacher, recipe, seeds=seeds, source=source, overrides=overrides, reporter=reporter)
    begin(out, plan)
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
    return Distilled(table, out / TABLE)


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


def begin(out: Path, plan: Plan) -> None:
    """Note in `out` what is being run there. Raises RunError where something else was begun."""
    path, now = out / RESULT, asked(plan)
    if not path.exists():
        atomic_write(path, json.dumps(now, indent=1).encode())
        return
    try:
        begun = json.loads(path.read_bytes())
        before = {**begun["recipe"], "images": begun["pack"], "teacher": begun["answers"]}
        del before["data"]["source"]  # where the images lie may differ; their checksum says whether they do
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}: expected what lucidate distill wrote; choose another --out") from None
    after = {**now["recipe"], "data": {**now["recipe"]["data"]}, "images": now["pack"], "teacher": now["answers"]}
    del after["data"]["source"]
    for section, value in after.items():
        if before.get(section) != value:
            raise RunError(
                f"--out: expected the distillation that {out} was begun with, {section} = {before.get(section)}, "
                f"received {value}; repeat that, or choose another --out"
            )
