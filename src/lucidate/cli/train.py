"""`lucidate train`."""

from __future__ import annotations

from lucidate.cli import console, stages
from lucidate.cli.options import Data, Device, Json, Name, Out, RecipeArgument, Resume, Set, settings


def train(
    recipe: RecipeArgument,
    data: Data = None,
    name: Name = None,
    out: Out = None,
    set_: Set = None,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a model into a run folder. The test split stays sealed.

    Example: lucidate train compact --data cifar10 --out runs/compact
    """
    with console.reporter() as reporter:
        job = stages.prepare_job(
            recipe,
            data=data,
            out=out,
            overrides=settings(set_, name=name),
            device=device,
            reporter=reporter,
            resume=resume,
        )
        with job.claim(resume=resume):
            results = stages.train(job, reporter=reporter).results
    result = {"run": str(job.run.path), **results.model_dump()}
    text = f"validation accuracy {results.val_accuracy:.4f} after {results.epochs} epochs\n{job.run.path}"
    console.emit(result, text, as_json=json)
