"""Which images train, which select, which judge: stratified, seeded, stored with the run, and found again from it.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lucidate.core.atomic import atomic_path
from lucidate.core.errors import ChecksumError, RunError, SourceError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.recipe import Recipe
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack, open_pack
from lucidate.data.sources.source import Source

NAMES = ("train", "validation", "test")
POOLED = "80-10-10"  # of a source without a test split
SHARES = {POOLED: (0.1, 0.1), "20-10-70": (0.1, 0.7)}  # scheme → validation, test


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of the packed store, each in one split, ascending.

    scheme: how they came about: "official" (test as given, validation from train), or shares of train, validation and
    test in percent (pooled).
    """

    scheme: str
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def rows(self, name: str) -> NDArray[np.int64]:
        """Rows of one split by name. Raises RunError for a name that is none."""
        require_name(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        return ((name, self.rows(name)) for name in NAMES)

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(rows) for name, rows in self}

    def save(self, path: Path, ids: NDArray[np.str_]) -> None:
        """Write one row an image: id, row in the store, split. ids: (N,) of the whole store."""
        index = np.concatenate([rows for _, rows in self])
        names = np.repeat(NAMES, list(self.sizes.values()))
        table = pa.table(
            {"id": ids[index].tolist(), "index": index, "split": pa.array(names.tolist()).dictionary_encode()},
            metadata={b"scheme": self.scheme.encode()},
        )
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Splits:
        """Read what `save` wrote."""
        try:
            table = pq.read_table(path)
            index, names = table["index"].to_numpy(), np.array(table["split"].to_pylist())
            rows = {name: index[names == name].astype(np.int64, casting="safe") for name in NAMES}
            return cls(scheme=table.schema.metadata[b"scheme"].decode(), **rows)
        except FileNotFoundError:
            raise RunError(f"{path}: expected the split of a run; there is no such file") from None
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            raise RunError(f"{path}: expected the split of a run, received a damaged file, or another's") from None


def require_name(name: str) -> None:
    """Raise RunError for a name that no split has."""
    if name not in NAMES:
        raise RunError(f"split: expected one of {', '.join(NAMES)}, received {name!r}")


def divide(images: Pack | Source, recipe: Recipe) -> Splits:
    """The splits of a pack, or of a source before it is packed, by a recipe. Raises SourceError when one would be
    empty."""
    return make_splits(
        images.labels,
        np.asarray(images.given),
        scheme=recipe.data.split,
        val_fraction=recipe.data.val_fraction,
        seed=split_seed(recipe),
        train_size=recipe.data.train_size,
    )


def split_seed(recipe: Recipe) -> int:
    """The seed that divides a recipe's images."""
    return recipe.seed if recipe.data.seed is None else recipe.data.seed


def make_splits(
    labels: NDArray[np.int64],
    given: NDArray[np.str_],
    *,
    scheme: str,
    val_fraction: float,
    seed: int,
    train_size: int | None = None,
) -> Splits:
    """Divide a data set.

    labels: (N,) in [0, K). given: (N,) "train", "test" or "" as the source says. scheme: "official" keeps the given
    test split and takes `val_fraction` of each class of the rest for validation; a source without a test split of
    its own is pooled instead, as the schemes of `SHARES` always are: per class, by shares of the images.
    train_size: images that train, where not all are to; validation shrinks in proportion, the test split does not.
    Raises SourceError when a split would be empty.
    """
    generator = np.random.default_rng(seed)
    everything = np.arange(len(labels))
    is_test = given == "test"
    if scheme in SHARES or not is_test.any():
        scheme = scheme if scheme in SHARES else POOLED
        val_share, test_share = SHARES[scheme]
        rest, test = _take(everything, labels, test_share, generator)
        train, validation = _take(rest, labels, val_share / (1 - test_share), generator)
    else:
        test = everything[is_test]
        train, validation = _take(everything[~is_test], labels, val_fraction, generator)
    drawn = train_size is not None and train_size < len(train) and len(validation) > 0 and len(test) > 0
    if train_size is not None and train_size < len(train):
        share = train_size / len(train)
        train, validation = (_take(rows, labels, share, generator)[1] for rows in (train, validation))
    splits = Splits(scheme, train, validation, test)
    for name, rows in splits:
        if not len(rows):
            kept = f" and train_size={train_size}" if drawn else ""
            way_on = "raise train_size" if drawn else "add images (ten a class at least)"
            raise SourceError(
                f"data: expected enough images for train, validation and test, received {len(labels)}{kept}, "
                f"which leave none for {name}; {way_on}"
            )
    return splits


def _take(
    rows: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into (kept, taken), taking `fraction` of each class, rounded; both ascending."""
    taken = []
    for label in np.unique(labels[rows]):
        members = rows[labels[rows] == label]
        taken.append(generator.permutation(members)[: round(fraction * len(members))])
    chosen = np.sort(np.concatenate(taken)) if taken else rows[:0]
    return np.setdiff1d(rows, chosen), chosen


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


def source_of(card: RunCard) -> str:
    """A run's images: where they lay when it was made, else as its source was named."""
    data = card.data
    return data.path if data.path and Path(data.path).exists() else data.source


def open_data(run: RunDir, *, pack: Pack | None = None, reporter: Reporter | None = None) -> RunData:
    """A run's images: where they lay when it was made, else where its source leads from here. pack: if open already.

    Raises ChecksumError when they have changed since, SourceError when they are gone.
    """
    card = RunCard.load(run.card)
    if pack is not None:
        return RunData(run, card, pack)
    data = card.data
    if card.origin and not data.pack:
        raise SourceError(
            f"data: expected the images that {card.origin.file} is to be judged on, received none; write into "
            f'{card.origin.declared} beside it: data = "SRC"'
        )
    source = source_of(card)
    pack = open_pack(source, image_size=data.image_size, reporter=reporter or Silent())
    if pack.hash != data.pack:
        way_on = "remove this model's run folder" if card.origin else "make a new run"
        raise ChecksumError(
            f"data: expected {source} as the run was made from (checksum {data.pack[:12]}), "
            f"received other images ({pack.hash[:12]}); restore them, or {way_on}"
        )
    return RunData(run, card, replace(pack, dataset=data.dataset or pack.dataset))  # its user may have given it a name
