"""A run's images and their division, found again and checked to be the ones it was made from. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lucidate.core.errors import ChecksumError, RunError, SourceError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack, open_pack
from lucidate.data.splits import Splits, divide


@dataclass(frozen=True, eq=False)
class RunData:
    """What a run was made from: its card, and the packed store of its images."""

    run: RunDir
    card: RunCard
    pack: Pack

    @cached_property
    def splits(self) -> Splits:
        """The division that it was trained with: as stored, else, as with models that are shipped, drawn again.

        Raises RunError where neither gives the one of the run card, and for rows that the store does not have.
        """
        path = self.run.splits
        if not path.exists():
            splits, wanted = divide(self.pack, self.card.recipe), self.card.split.sizes
            if splits.sizes != wanted:
                raise RunError(
                    f"{path}: expected the split that the run was trained with, received no file, and a recipe that "
                    f"gives another one ({splits.sizes['test']:,} test images, not {wanted.get('test', 0):,})"
                )
            return splits
        splits = Splits.load(path)
        for _, rows in splits:
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(self.pack):
                raise RunError(
                    f"{path}: expected rows of the run's {len(self.pack):,} images, received row {rows.max():,}; "
                    "the file is damaged, or another run's"
                )
        return splits


def open_data(run: RunDir, *, pack: Pack | None = None, reporter: Reporter | None = None) -> RunData:
    """A run's images: where they lay when it was made, else where its source leads from here.

    pack: the images, where they are open already. Raises ChecksumError when they have changed since, SourceError when
    they are gone.
    """
    card = RunCard.load(run.card)
    return RunData(run, card, pack or _reopen(card, reporter or Silent()))


def source_of(card: RunCard) -> str:
    """A run's images: where they lay when it was made, else as its source was named."""
    data = card.data
    return data.path if data.path and Path(data.path).exists() else data.source


def _reopen(card: RunCard, reporter: Reporter) -> Pack:
    data = card.data
    if card.origin and not data.pack:
        raise SourceError(
            f"data: expected the images that {card.origin.file} is to be judged on, received none; write into "
            f'{card.origin.declared} beside it: data = "SRC"'
        )
    source = source_of(card)
    pack = open_pack(source, image_size=data.image_size, reporter=reporter)
    if pack.hash != data.pack:
        way_on = "remove this model's run folder" if card.origin else "make a new run"
        raise ChecksumError(
            f"data: expected {source} as the run was made from (checksum {data.pack[:12]}), "
            f"received other images ({pack.hash[:12]}); restore them, or {way_on}"
        )
    return replace(pack, dataset=data.dataset or pack.dataset)  # its user may have given it a name
