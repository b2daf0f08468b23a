"""A model and images → predictions."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.batches import Batches
from lucidate.data.dataset import Dataset
from lucidate.data.pack import Pack
from lucidate.data.preprocess import Preprocess
from lucidate.data.run_data import open_data
from lucidate.models.checkpoint import load_model
from lucidate.models.tta import Views, tta_logits
from lucidate.predict.stopwatch import Stopwatch
from lucidate.predict.table import table_of

BATCH = 128  # on two cores larger batches leave the cache and gain nothing
ACCELERATOR_BATCH = 1_000  # keeps an accelerator busy; six views of it still fit in little memory


def batch_size(device: torch.device | str) -> int:
    """Images a batch of prediction."""
    return BATCH if torch.device(device).type == "cpu" else ACCELERATOR_BATCH


def predict_logits(
    model: nn.Module,
    batches: Batches,
    *,
    views: Views = "one",
    mirror: bool = False,
    reporter: Reporter | None = None,
    task: str = "predicting",
) -> NDArray[np.float32]:
    """Logits (M, K) of every row of `batches`, in order. The model's mode is given back as it was.

    views, mirror: as in `tta_logits`.
    """
    reporter = reporter or Silent()
    was_training = model.training
    model.eval()
    kind = next((p.dtype for p in model.parameters()), torch.float32)
    total, done, parts, start = len(batches.rows), 0, [], time.perf_counter()
    try:
        with torch.inference_mode():
            for images, labels in batches.in_order():
                # Left on the device until the end: fetching each would make an accelerator wait.
                parts.append(tta_logits(model, images.to(kind), views=views, mirror=mirror).float())
                done += len(labels)
                rate = done / (time.perf_counter() - start)
                reporter.advance(task, done, total, f"{rate:,.0f} images/s")
    finally:
        model.train(was_training)
    logits: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return logits


def predict_run(
    run: RunDir,
    split: str,
    *,
    pack: Pack | None = None,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
    watch: Stopwatch | None = None,
    again: bool = False,
) -> Predictions:
    """Predict one split of a run's own images with its weights; keep the table and its accuracy in the run.

    This is where the test split is opened, which the run card counts: it belongs after every choice has been made.
    pack: the run's images, where they are open already. watch: times the prediction itself. again: the accuracy is
    known, and only the table is missing: the run card stays as it is.
    """
    data = open_data(run, pack=pack, reporter=reporter)
    card, pack = data.card, data.pack
    dataset = Dataset(pack, data.splits, Preprocess.from_dict(card.preprocess))
    batches = dataset.batches(split, batch_size=batch_size(device), device=device)
    model, views = load_model(run, device=device), card.recipe.predict.views
    task = f"predicting {split}"
    with (watch or Stopwatch()).running():
        logits = predict_logits(model, batches, views=views, mirror=card.data.flips, reporter=reporter, task=task)
    predictions = table_of(pack, batches.rows, logits, split=split, model=card.recipe.model.name)
    predictions.save(run.predictions(split))
    if split in ("validation", "test") and not again:
        prefix = "val" if split == "validation" else "test"
        results: dict[str, float] = {f"{prefix}_accuracy": predictions.accuracy}
        if views != "one":
            plain = predict_logits(model, batches, reporter=reporter, task=f"{task}, one view")
            results[f"{prefix}_accuracy_one_view"] = float((plain.argmax(1) == predictions.labels).mean())
            if split == "validation":  # a server with one view is calibrated on them
                replace(predictions, logits=plain).save(run.one_view(split))
        if split == "test":
            results["test_openings"] = card.results.test_openings + 1
        card.with_results(**results).save(run.card)
    return predictions


def predict_first(run: RunDir, split: str, *, device: torch.device | str = "cpu", reporter: Reporter) -> None:
    """Predict a split where there is no table of it, and making one opens nothing that was sealed.

    That is so for a model from elsewhere, and where the run card has the accuracy already, as of a model that is
    shipped without its predictions. Else the user decides when. The run must be locked by the caller.
    Raises SourceError for a model from elsewhere that was declared without images.
    """
    if run.predictions(split).exists():
        return
    card = RunCard.load(run.card)
    known = {"validation": card.results.val_accuracy, "test": card.results.test_accuracy}
    if card.origin:
        predict_run(run, split, device=device, reporter=reporter)
    elif known.get(split) is not None:
        reporter.say(f"{run.path}: the {split} accuracy is known, its predictions are not here: predicting again")
        predict_run(run, split, device=device, reporter=reporter, again=True)
