"""What the chapters are made from, and what several of them say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lucidate.analysis.findings import Findings
from lucidate.analysis.heatmaps import Heatmaps
from lucidate.analysis.levels import LevelsTable
from lucidate.analysis.statistics import wilson_interval
from lucidate.core.records import RunCard
from lucidate.core.registry import ENSEMBLE, TIMM
from lucidate.report import labels

NAMES_LISTED = 12  # classes that a sentence lists


@dataclass(frozen=True, eq=False)
class ReportData:
    """A run card, what was found in one split of it, and its images.

    split: the one that the findings speak of. pixels: (N, H, W, 3) uint8 packed store, may be memory-mapped.
    levels: where the run is part of them. heatmaps: where `explain` has made them.
    """

    card: RunCard
    findings: Findings
    split: str
    pixels: NDArray[np.uint8]
    levels: LevelsTable | None = None
    heatmaps: Heatmaps | None = None

    @property
    def classes(self) -> int:
        return len(self.card.classes)

    @property
    def model(self) -> str:
        """What the model is called."""
        return self.card.model.name.removeprefix(TIMM)

    @property
    def ensemble(self) -> bool:
        return self.card.recipe.model.name == ENSEMBLE


def interval_of(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy over so many images."""
    low, high = wilson_interval(round(accuracy * images), images)
    return float(low), float(high)


def span(low: float, high: float) -> str:
    """An interval of shares as tables give it: "89.6–90.8 %"."""
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def machine(card: RunCard) -> str:
    """What the run was made on."""
    threads = f"{card.threads} thread{'' if card.threads == 1 else 's'}"
    where = card.hardware.get("accelerator") or f"{card.hardware.get('processor', 'unknown processor')}, {threads}"
    return f"{where}, {card.processes} processes" if card.processes > 1 else str(where)


def class_list(names: tuple[str, ...]) -> str:
    """Class names in a sentence, the first ones of many."""
    shown = labels.short_names(names)[:NAMES_LISTED]
    if len(names) > NAMES_LISTED:
        return f"{', '.join(shown)} and {len(names) - NAMES_LISTED:,} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def of_classes(shown: int, total: int, which: str) -> str:
    """What a shortened chart leaves out; nothing where it is whole. which: such as "{} hardest"."""
    return f"The {which.format(shown)} of {total:,} classes; the gallery has all." if shown < total else ""
