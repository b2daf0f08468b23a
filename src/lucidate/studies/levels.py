"""Run what is missing, level by level, and write up what each bought."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lucidate.analysis.statistics import mcnemar, wilson_interval
from lucidate.analysis.studies import Level, LevelsTable
from lucidate.core.alignment import align
from lucidate.core.atomic import atomic_write
from lucidate.core.progress import Reporter
from lucidate.core.recipe import Recipe
from lucidate.core.records import History, Predictions, RunCard, jsonable
from lucidate.core.run import RunDir, begin_study
from lucidate.models.build import begins_with_weights
from lucidate.report.pdf.document import report_of_run
from lucidate.report.site.comparison import levels_site
from lucidate.report.site.gallery import gallery_of_run
from lucidate.studies.ensemble import ensemble_runs
from lucidate.studies.levels_plan import ENSEMBLE, TITLES, Plan, make_plan
from lucidate.training.job import complete, prepare_run
from lucidate.training.precision import changed

RESULT = "levels.json"
FRESH = "drawn at random"  # where weights came from that came from nowhere


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
    images: bool = True,
    reporter: Reporter,
    stop: Callable[[], bool] = lambda: False,
) -> LevelsResult:
    """Take a data set through levels 1 to 4 in `out`; each run in a folder of its own there.

    What an earlier call with the same arguments has finished stands; what it has begun, goes on. images: whether the
    report shows any. stop: asked after each
    step of a training; True saves and raises Interrupted. Raises RecipeError, RunError where `out` holds other things.
    """
    if not (out / RESULT).exists():
        RunDir.free(out)
    plan = make_plan(source, out, overrides=overrides, reporter=reporter)
    asked = {"source": source, "overrides": list(overrides)}
    begin_study(out / RESULT, asked, what="the levels", sections=lambda answer: {key: answer[key] for key in asked})
    runs: dict[str, RunDir] = {}
    for name in plan.recipes:
        folder = plan.folder_of(name)
        if folder != name:
            reporter.say(f"{name}: the recipe of {folder}, whose run it takes")
            runs[name] = runs[folder]
            continue
        reporter.say(f"{name} ({len(runs) + 1} of {len(plan.recipes)})")
        start, run = time.perf_counter(), RunDir(out / name)
        recipe = in_time(name, run, plan, before=runs, reporter=reporter)
        job = prepare_run(recipe, out=run.path, device=device, command=command, resume=True, reporter=reporter)
        runs[name] = complete(job, reporter=reporter, stop=stop, since=start)
    run = runs[ENSEMBLE] = RunDir(out / ENSEMBLE)
    if not run.card.exists():
        if run.path.exists():  # what a killed process wrote of it: its card comes last
            with run.lock():
                shutil.rmtree(run.path)
        members, method = [runs[name] for name in plan.members], plan.settings.combine
        with run.claim():
            ensemble_runs(members, run, method=method, device=device, command=command, reporter=reporter)
    table = levels_table(plan, runs)
    answer = {**asked, "headline": table.headline, **jsonable(table)}
    atomic_write(out / RESULT, json.dumps(answer, indent=1).encode())
    for name in (*plan.levels.values(), ENSEMBLE):
        if not (runs[name].gallery() / "index.html").exists():
            gallery_of_run(runs[name], reporter=reporter)
    gallery = levels_site(out / "gallery", table, title=RunCard.load(runs[ENSEMBLE].card).data.dataset)
    report = report_of_run(runs[ENSEMBLE], levels=table, path=out / "report.pdf", images=images, reporter=reporter)
    return LevelsResult(table, gallery, report)


def in_time(name: str, run: RunDir, plan: Plan, *, before: Mapping[str, RunDir], reporter: Reporter) -> Recipe:
    """A run's recipe, with fewer minutes where the runs before it took longer than planned.

    before: by their names in the plan. A run that has begun keeps the minutes that it began with.
    """
    recipe = plan.recipes[name]
    own = recipe.train.minutes
    if own is None or plan.settings.minutes is None:
        return recipe
    if run.card.exists():
        minutes = RunCard.load(run.card).recipe.train.minutes
    else:
        results = {other: RunCard.load(done.card).results for other, done in before.items()}
        seconds = {other: found.seconds or found.train_seconds or 0.0 for other, found in results.items()}
        minutes = plan.minutes_left(name, spent={other: value / 60 for other, value in seconds.items()})
        if minutes < own:
            reporter.say(f"{name}: {minutes:.1f} min instead of {own:.1f}, since those before it took longer")
    return changed(recipe, {"train": {"minutes": minutes}})


def levels_table(plan: Plan, runs: Mapping[str, RunDir]) -> LevelsTable:
    """The table of a plan's runs, by their recipes' names; the ensemble under its own."""
    levels = []
    before: RunDir | None = None
    for number, name in plan.levels.items():
        levels.append(_level(number, runs[name], before))
        before = runs[name]
    members = tuple(_level(4, runs[name], None) for name in plan.members)
    last = _level(4, runs[ENSEMBLE], before, members=members)
    ranked = sorted((*levels, last), key=lambda level: -level.test_accuracy)
    folders = {run.path.name: run for run in runs.values()}
    second, best = (folders[level.run] for level in ranked[1::-1])
    return LevelsTable((*levels, last), plan.notes, _difference(second, best)[1])


def _level(number: int, run: RunDir, before: RunDir | None, *, members: tuple[Level, ...] = ()) -> Level:
    card = RunCard.load(run.card)
    validation, test = (Predictions.load(run.predictions(split)) for split in ("validation", "test"))
    intervals = [wilson_interval(int(table.correct.sum()), len(table)) for table in (validation, test)]
    change = p = None
    if before is not None:
        change, p = _difference(before, run)
    seconds = card.results.train_seconds or 0.0
    shown = 0.0 if members else sum(History.load(run.history).images)
    return Level(
        level=number,
        title=TITLES[number],
        run=run.path.name,
        model=f"ensemble of {len(members)}" if members else card.model.name.removeprefix("timm:"),
        origin="pretrained" if _pretrained(card, members) else "from scratch",
        weights="; ".join(dict.fromkeys(member.weights for member in members)) or card.model.weights or FRESH,
        parameters=card.model.parameters,
        val_images=len(validation),
        val_accuracy=validation.accuracy,
        val_low=float(intervals[0][0]),
        val_high=float(intervals[0][1]),
        test_images=len(test),
        test_accuracy=test.accuracy,
        test_low=float(intervals[1][0]),
        test_high=float(intervals[1][1]),
        change=change,
        p=p,
        seconds=seconds,
        images_per_second=shown / seconds if seconds and shown else 0.0,
        members=members,
        best_member_test_accuracy=max((member.test_accuracy for member in members), default=None),
    )


def _difference(first: RunDir, second: RunDir) -> tuple[float, float]:
    """Test accuracy of the second run less the first's, and McNemar's exact p of the two."""
    tables = [Predictions.load(run.predictions("test")) for run in (first, second)]
    one, other = align(tables, names=(first.path.name, second.path.name))
    p = mcnemar(int((one.correct & ~other.correct).sum()), int((~one.correct & other.correct).sum()))
    return other.accuracy - one.accuracy, p


def _pretrained(card: RunCard, members: tuple[Level, ...]) -> bool:
    return any(member.origin == "pretrained" for member in members) or begins_with_weights(card.recipe.model)
