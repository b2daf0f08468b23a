"""A model and images → predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lucidate.core.progress import Reporter
from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.batches import Batches
from lucidate.data.pack import Pack
from lucidate.data.splits import open_data
from lucidate.models.checkpoint import load_predictor
from lucidate.predict.loop import Stopwatch, predict_rows, table_of, with_progress


def predict_logits(
    model: nn.Module, batches: Batches, *, reporter: Reporter | None = None, task: str = "predicting"
) -> NDArray[np.float32]:
    """Logits (M, K) of a network in training for every row of `batches`, one view each, in order.

    In the type of its weights; its mode is given back as it was.
    """
    was_training = model.training
    model.eval()
    kind = next((p.dtype for p in model.parameters()), torch.float32)
    try:
        with torch.inference_mode():
            # Left on the device until the end: fetching each would make an accelerator wait.
            each = (model(images.to(kind)).float() for images, _ in batches.in_order())
            parts = list(with_progress(each, len(batches.rows), task=task, reporter=reporter))
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
    rows, task = data.splits.rows(split), f"predicting {split}"
    predictor = load_predictor(run, device=device)
    logits = predict_rows(predictor, pack.images, rows, reporter=reporter, task=task, watch=watch)
    predictions = table_of(pack, rows, logits, split=split, model=card.recipe.model.name)
    predictions.save(run.predictions(split))
    if split in ("validation", "test") and not again:
        prefix = "val" if split == "validation" else "test"
        results: dict[str, float] = {f"{prefix}_accuracy": predictions.accuracy}
        if card.recipe.predict.views != "one":
            predictor = load_predictor(run, views="one", device=device)
            plain = predict_rows(predictor, pack.images, rows, reporter=reporter, task=f"{task}, one view")
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
    if card.origin:
        predict_run(run, split, device=device, reporter=reporter)
    elif known_accuracy(card, split) is not None:
        reporter.say(f"{run.path}: the {split} accuracy is known, its predictions are not here: predicting again")
        predict_run(run, split, device=device, reporter=reporter, again=True)


def known_accuracy(card: RunCard, split: str) -> float | None:
    """What the run card holds of a split; None of what has not been judged, and of the training images."""
    return {"validation": card.results.val_accuracy, "test": card.results.test_accuracy}.get(split)
