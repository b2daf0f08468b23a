"""A finished run's images, found again and checked to be the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lucidate.core.errors import ChecksumError, SourceError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard
from lucidate.data.pack import Pack, open_pack


def reopen_pack(card: RunCard, *, reporter: Reporter | None = None) -> Pack:
    """The packed store that a run was made from: where it lay then, else where its source leads from here.

    Raises ChecksumError when the images have changed since, SourceError when they are gone.
    """
    data = card.data
    if card.origin and not data.pack:
        raise SourceError(
            f"data: expected the images that {card.origin.file} is to be judged on, received none; write into "
            f'{card.origin.declared} beside it: data = "SRC"'
        )
    source = data.path if data.path and Path(data.path).exists() else data.source
    pack = open_pack(source, image_size=data.image_size, reporter=reporter or Silent())
    if pack.hash != data.pack:
        way_on = "remove this model's run folder" if card.origin else "make a new run"
        raise ChecksumError(
            f"data: expected {source} as the run was made from (checksum {data.pack[:12]}), "
            f"received other images ({pack.hash[:12]}); restore them, or {way_on}"
        )
    return replace(pack, dataset=data.dataset or pack.dataset)  # its user may have given it a name
