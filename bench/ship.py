"""Make of a finished run a model that can be shipped: run card without this machine's paths, half-precision weights,
history, and what a server must know of its validation images (numbers only).

    python bench/ship.py RUN models/NAME --note "…" --data SRC

Halving the precision of the weights is checked on validation images before anything is written: more than .2 points of
accuracy lost, and nothing is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from lucidate.core.records import Predictions, RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack, open_pack
from lucidate.data.splits import Splits
from lucidate.models.checkpoint import load_predictor
from lucidate.models.predictor import Views
from lucidate.predict.infer import predict_rows
from lucidate.serve.calibration import calibration_of, statistics_of, store_calibrations

LOSS = 0.002  # of validation accuracy, at most


def halve(source: Path, target: Path) -> None:
    """The same values in float16, but for counters."""
    values = load_file(source)
    halved = {name: value.half() if value.is_floating_point() else value for name, value in values.items()}
    save_file(halved, target)


def validation(run: RunDir, splits: Splits, pack: Pack, *, views: Views) -> Predictions:
    """The run's answers to its validation images."""
    card = RunCard.load(run.card)
    rows = splits.validation
    return Predictions(
        ids=pack.ids[rows],
        index=rows,
        labels=pack.labels[rows],
        logits=predict_rows(load_predictor(run, views=views), pack.images, rows),
        class_names=pack.class_names,
        dataset=pack.dataset,
        split="validation",
        model=card.recipe.model.name,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", required=True, help="the run's images")
    parser.add_argument("--note", action="append", default=[], help="what a reader of its results must know")
    options = parser.parse_args()
    run, splits = RunDir.open(options.run), Splits.load(RunDir(options.run).splits)
    card = RunCard.load(run.card)
    # Images are named by what they are; where they lay on this machine concerns nobody.
    recipe = card.recipe.model_copy(update={"data": card.recipe.data.model_copy(update={"source": card.data.dataset})})
    shipped = card.model_copy(
        update={
            "name": options.target.name,
            "recipe": recipe,
            "data": card.data.model_copy(update={"source": card.data.dataset, "path": None}),
            "command": f"lucidate run {card.name.partition('-')[0]} --data FOLDER --set seed={card.seed}",
            "notes": (*card.notes, "weights are stored in float16", *options.note),
        }
    )
    with tempfile.TemporaryDirectory() as name:
        made = RunDir(Path(name) / options.target.name)
        made.path.mkdir()
        shipped.save(made.card)
        halve(run.weights, made.weights)
        shutil.copy(run.history, made.history)
        pack = open_pack(options.data, image_size=card.data.image_size)
        full, half = (validation(which, splits, pack, views=recipe.predict.views) for which in (run, made))
        print(json.dumps({"float32": full.accuracy, "float16": half.accuracy, "bytes": made.weights.stat().st_size}))
        if full.accuracy - half.accuracy > LOSS:
            sys.exit("float16 loses too much")
        tables = {recipe.predict.views: half}
        if "one" not in tables:
            tables["one"] = validation(made, splits, pack, views="one")
        statistics = statistics_of(pack.images, splits.validation)
        found = {name: calibration_of(table, statistics, views=name) for name, table in tables.items()}
        store_calibrations(made, found)
        shutil.copytree(made.path, options.target, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
