"""`lucidate train`."""

from __future__ import annotations

from lucidate.cli import console, stages
from lucidate.cli.options import Data, Device, Json, Out, RecipeArgument, Set


def train(
    recipe: RecipeArgument,
    data: Data = None,
    out: Out = None,
    set_: Set = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a model into a run folder. The test split stays sealed.

    Example: lucidate train compact --data cifar10 --out runs/compact
    """
    with console.reporter() as reporter:
        run, card = stages.train(recipe, data=data, out=out, overrides=set_ or [], device=device, reporter=reporter)
    result = {"run": str(run.path), **card.results}
    text = (
        f"validation accuracy {card.results['val_accuracy']:.4f} after {card.results['epochs']:.0f} epochs\n{run.path}"
    )
    console.emit(result, text, as_json=json)
