"""What `run`, `train` and `demo` have in common: a recipe resolved, a folder chosen, a model trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lucidate.cli.console import say_set_aside
from lucidate.core.errors import LucidateError
from lucidate.core.progress import Reporter
from lucidate.core.recipe import find_recipe, load_recipe
from lucidate.core.records import RunCard
from lucidate.core.rundir import RunDir, fresh_path

if TYPE_CHECKING:
    import torch


def train(
    recipe: str, *, data: str | None, out: Path | None, overrides: list[str], device: str, reporter: Reporter
) -> tuple[RunDir, RunCard]:
    """Resolve, prepare and train. Everything that can be refused is refused before a folder is made."""
    resolved = load_recipe(recipe, source=data, overrides=overrides)
    run = RunDir.free(out or fresh_path(Path("runs"), find_recipe(recipe).stem))
    from lucidate.data.dataset import prepare
    from lucidate.models import check
    from lucidate.train import fit

    chosen = pick_device(device)
    check(resolved.model)
    dataset = prepare(resolved, reporter=reporter)
    set_aside = [{"path": item.path, "reason": item.reason} for item in dataset.pack.set_aside]
    say_set_aside(set_aside, to=reporter)
    sizes = ", ".join(f"{count:,} {name}" for name, count in dataset.splits.sizes.items())
    reporter.say(f"{dataset.pack.dataset}: {len(dataset.pack.class_names)} classes, {sizes}; training in {run.path}")
    command = " ".join(["lucidate", *sys.argv[1:]])
    return run, fit(resolved, dataset, run=run, device=chosen, command=command, reporter=reporter)


def finish(run: RunDir, *, seconds: float) -> RunCard:
    """Mark a run whose results all stand as finished, and return its passport."""
    card = RunCard.load(run.card).with_results(seconds=round(seconds, 2)).model_copy(update={"status": "finished"})
    card.save(run.card)
    return card


def pick_device(name: str) -> torch.device:
    """The device that `--device` names."""
    import torch

    from lucidate.train import default_device

    if name == "auto":
        return default_device()
    if name not in ("cpu", "cuda"):
        raise LucidateError(f"--device: expected auto, cpu or cuda, received {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise LucidateError("--device: expected a GPU for cuda, received a machine or a torch without one; use cpu")
    return torch.device(name)
