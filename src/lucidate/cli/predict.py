"""`lucidate predict`."""

from __future__ import annotations

from lucidate.cli import console, stages
from lucidate.cli.options import Device, Json, RunArgument, Split
from lucidate.core.rundir import RunDir


def predict(run: RunArgument, split: Split = "test", device: Device = "auto", json: Json = False) -> None:
    """Write a run's predictions on one split of its images.

    Example: lucidate predict runs/compact --split validation
    """
    folder = RunDir.open(run)
    from lucidate.predict import predict_run

    with console.reporter() as reporter, folder.lock():
        predictions = predict_run(folder, split, device=stages.pick_device(device), reporter=reporter)
    path = folder.predictions(split)
    result = {"run": str(run), "split": split, "images": len(predictions), "accuracy": predictions.accuracy}
    text = f"{split} accuracy {predictions.accuracy:.4f} on {len(predictions):,} images\n{path}"
    console.emit({**result, "predictions": str(path)}, text, as_json=json)
