"""A finished run's split, also where the file that holds it was left behind, as with models that are shipped."""

from __future__ import annotations

from lucidate.core.errors import RunError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack
from lucidate.data.splits import Splits, divide


def resplit(run: RunDir, card: RunCard, pack: Pack) -> Splits:
    """The split that a run was trained with: as stored, else drawn again from its recipe.

    pack: the run's own images, as `reopen_pack` gives them. Raises RunError for a run that has neither, and for
    rows that the pack does not have.
    """
    if run.splits.exists():
        splits = Splits.load(run.splits)
        for _, rows in splits:
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(pack):
                raise RunError(
                    f"{run.splits}: expected rows of the run's {len(pack):,} images, received row {rows.max():,}; "
                    "the file is damaged, or another run's"
                )
        return splits
    splits = divide(pack, card.recipe)
    if splits.sizes != card.split.sizes:
        raise RunError(
            f"{run.splits}: expected the split that the run was trained with, received no file, and a recipe that "
            f"gives another one ({splits.sizes['test']:,} test images, not {card.split.sizes.get('test', 0):,})"
        )
    return splits
