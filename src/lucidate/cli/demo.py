"""`lucidate demo`: the main road on the embedded data set, offline."""

from __future__ import annotations

import time
from pathlib import Path

from lucidate.cli import console, stages
from lucidate.cli.options import Json, Out
from lucidate.cli.run import main_road
from lucidate.core.run import fresh_path


def demo(out: Out = None, json: Json = False) -> None:
    """Train on scikit-learn's embedded digits, offline, and say where the gallery is.

    Example: lucidate demo
    """
    out = out or fresh_path(Path("runs"), "demo")
    start = time.perf_counter()
    with console.reporter() as reporter:
        job = stages.prepare_job("digits", data=None, out=out, overrides=[], device="cpu", reporter=reporter)
        result = main_road(job, reporter=reporter, since=start)
    text = (
        f"Test accuracy {100 * result['test_accuracy']:.1f} % after {result['seconds']:.0f} s, all stages together.\n"
        f"Open the gallery in a browser:\n  {Path(result['gallery']).resolve()}"
    )
    console.emit(result, text, as_json=json)
