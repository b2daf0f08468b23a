"""Run what is missing, level by level, and write up what each bought."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lucidate.analysis.studies import LevelsTable
from lucidate.core.atomic import atomic_write
from lucidate.core.errors import RunError
from lucidate.core.progress import Reporter
from lucidate.core.records import RunCard, jsonable
from lucidate.core.run import RunDir
from lucidate.report.pdf.document import report_of_run
from lucidate.report.site.comparison import levels_site
from lucidate.report.site.gallery import gallery_of_run
from lucidate.studies.ensemble import ensemble_runs
from lucidate.studies.levels_plan import ENSEMBLE, Plan, make_plan
from lucidate.studies.levels_table import levels_table
from lucidate.training.job import complete, prepare_job

RESULT = "levels.json"


@dataclass(frozen=True)
class LevelsResult:
    """The table, and where it is written up."""

    table: LevelsTable
    gallery: Path
    report: Path


def run_levels(
    source: str,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    device: torch.device,
    command: str = "",
    reporter: Reporter,
    stop: Callable[[], bool] = lambda: False,
) -> LevelsResult:
    """Take a data set through levels 1 to 4 in `out`; each run in a folder of its own there.

    What an earlier call with the same arguments has finished stands; what it has begun, goes on. stop: asked after each
    step of a training; True saves and raises Interrupted. Raises RecipeError, RunError where `out` holds other things.
    """
    if not (out / RESULT).exists():
        RunDir.free(out)
    plan = make_plan(source, out, overrides=overrides, reporter=reporter)
    require_same_plan(out, source=source, overrides=overrides)
    runs: dict[str, RunDir] = {}
    for name, recipe in plan.recipes.items():
        folder = plan.folder_of(name)
        if folder != name:
            reporter.say(f"{name}: the recipe of {folder}, whose run it takes")
            runs[name] = runs[folder]
            continue
        reporter.say(f"{name} ({len(runs) + 1} of {len(plan.recipes)})")
        run = RunDir(out / name)
        job = prepare_job(recipe, run, device=device, command=command, resume=True, reporter=reporter)
        runs[name] = complete(job, reporter=reporter, stop=stop)
    runs[ENSEMBLE] = combine(RunDir(out / ENSEMBLE), plan, runs, device=device, command=command, reporter=reporter)
    table = levels_table(plan, runs)
    answer = {"source": source, "overrides": list(overrides), "headline": table.headline, **jsonable(table)}
    atomic_write(out / RESULT, json.dumps(answer, indent=1).encode())
    for name in (*plan.levels.values(), ENSEMBLE):
        if not (runs[name].gallery() / "index.html").exists():
            gallery_of_run(runs[name], reporter=reporter)
    gallery = levels_site(out / "gallery", table, title=RunCard.load(runs[ENSEMBLE].card).data.dataset)
    report = report_of_run(runs[ENSEMBLE], levels=table, path=out / "report.pdf", reporter=reporter)
    return LevelsResult(table, gallery, report)


def combine(
    run: RunDir,
    plan: Plan,
    runs: dict[str, RunDir],
    *,
    device: torch.device,
    command: str,
    reporter: Reporter,
) -> RunDir:
    """Level 4's ensemble of its members, unless it stands already."""
    if not run.card.exists():
        members = [runs[name] for name in plan.members]
        with run.claim():
            ensemble_runs(members, run, method=plan.settings.combine, device=device, command=command, reporter=reporter)
    return run


def require_same_plan(out: Path, *, source: str, overrides: Sequence[str]) -> None:
    """Note in `out` what is being run there. Raises RunError where something else was begun."""
    asked = {"source": source, "overrides": list(overrides)}
    path = out / RESULT
    if not path.exists():
        atomic_write(path, json.dumps(asked, indent=1).encode())
        return
    try:
        begun = json.loads(path.read_bytes())
        before = {key: begun[key] for key in asked}
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}: expected what lucidate levels wrote; choose another --out") from None
    if before != asked:
        raise RunError(
            f"--out: expected the levels that {out} was begun with, {before}, received {asked}; repeat those, or "
            "choose another --out"
        )
