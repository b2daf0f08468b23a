"""`lucidate run`: the whole main road."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lucidate.cli import console, stages
from lucidate.cli.options import Data, Device, Json, Name, Out, RecipeArgument, Resume, Set, settings
from lucidate.core.machine import processes
from lucidate.core.progress import Reporter
from lucidate.core.records import RunCard


def run(
    recipe: RecipeArgument,
    data: Data = None,
    name: Name = None,
    out: Out = None,
    set_: Set = None,
    device: Device = "auto",
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train, predict, analyze, and write the gallery and the report.

    Example: lucidate run compact --data cifar10 --set train.epochs=5 --out runs/first
    """
    with console.reporter() as reporter:
        result = main_road(
            recipe,
            data=data,
            out=out,
            overrides=settings(set_, name=name),
            device=device,
            reporter=reporter,
            resume=resume,
        )
    if not result:
        return
    text = (
        f"validation accuracy {result['val_accuracy']:.4f}, test accuracy {result['test_accuracy']:.4f}, "
        f"{result['seconds']:.0f} s\nrun      {result['run']}\ngallery  {Path(result['gallery']).resolve()}\n"
        f"report   {Path(result['report']).resolve()}"
    )
    console.emit(result, text, as_json=json)


def main_road(
    recipe: str,
    *,
    data: str | None,
    out: Path | None,
    overrides: list[str],
    device: str,
    reporter: Reporter,
    resume: bool = False,
) -> dict[str, Any]:
    """Every stage in turn; the object that `--json` prints, empty in processes that only train along."""
    start = time.perf_counter()
    ready = stages.prepare_job(
        recipe, data=data, out=out, overrides=overrides, device=device, reporter=reporter, resume=resume
    )
    folder, pack = ready.run, ready.dataset.pack
    with stages.claim(ready, resume=resume):
        stages.train(ready, reporter=reporter)
        if processes()[0]:
            return {}  # the first of the processes that train together goes on
        from lucidate.predict.infer import predict_run
        from lucidate.report.pdf.document import report_of_run
        from lucidate.report.site.gallery import gallery_of_run

        for split in ("validation", "test"):
            if resume and folder.predictions(split).exists():
                continue  # the test split is opened once
            predict_run(folder, split, pack=pack, device=ready.device, reporter=reporter)
        seconds = round(time.perf_counter() - start, 2)
        card = RunCard.load(folder.card).with_results(seconds=seconds).model_copy(update={"status": "finished"})
        card.save(folder.card)
        index = gallery_of_run(folder, pack=pack, reporter=reporter)
        report = report_of_run(folder, pack=pack, reporter=reporter)
    return {
        "run": str(folder.path),
        "val_accuracy": card.results.val_accuracy,
        "test_accuracy": card.results.test_accuracy,
        "gallery": str(index),
        "report": str(report),
        "seconds": round(time.perf_counter() - start, 2),
    }
