"""A finished run's images, found again and checked to be the same."""

from __future__ import annotations

from lucidate.core.errors import ChecksumError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import RunCard
from lucidate.data.pack import Pack, open_pack


def reopen_pack(card: RunCard, *, reporter: Reporter | None = None) -> Pack:
    """The packed store that a run was made from. Raises ChecksumError when its source has changed since."""
    source = card.data["source"]
    pack = open_pack(source, image_size=card.data["image_size"], reporter=reporter or Silent())
    if pack.hash != card.data["pack"]:
        raise ChecksumError(
            f"data: expected {source} as the run was made from (checksum {card.data['pack'][:12]}), "
            f"received other images ({pack.hash[:12]}); restore them, or train a new run"
        )
    return pack
