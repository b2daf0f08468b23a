"""Text that others wrote, as it may be shown: it moves no cursor, is no formula to a spreadsheet, and is short."""

from __future__ import annotations

import reprlib
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 60  # characters of a value that an error shows
# What reverses the order in which text is shown: marks, embeddings, overrides and isolates of Unicode's UAX #9.
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
HIDDEN = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of surrogate pairs, separators of lines and paragraphs

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a text that is taken for a formula begins with


def plain(text: str) -> str:
    """Text in one line that changes nothing but the place where it stands: control characters as Python escapes them.

    Escape sequences, line ends, bidirectional marks and bytes that are no UTF-8 are shown, not obeyed. Letters of all
    scripts stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(one) if _is_control(one) else one for one in text)


def one_line(error: BaseException, *, limit: int = 160) -> str:
    """What an error says, as part of a line of ours: without line ends, cut to `limit` characters."""
    return " ".join(str(error).split())[:limit]


def brief(value: object) -> str:
    """A value of any kind and depth as Python writes it, cut to 60 characters before it is written out.

    So it takes no longer for what is nested so often that its whole text would fill the memory.
    """
    text = _BRIEF.repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def csv_of(frame: pd.DataFrame, *, float_format: str | None = None) -> str:
    """All rows, numbers in full precision unless a format is given; no cell is a formula to a spreadsheet."""
    return no_formulas(frame).to_csv(index=False, lineterminator="\n", float_format=float_format)


def no_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with an apostrophe before each text, column names too, that a spreadsheet would take for a formula.

    Source: OWASP, "CSV Injection". Numbers stay as they are, those below 0 too. A carriage return, which many programs
    take for the end of a row, becomes a blank.
    """
    from pandas.api.types import is_numeric_dtype  # here, since pandas takes half a second to load

    def quoted(value: object) -> object:
        if not isinstance(value, str):
            return value
        return ("'" if value.startswith(FORMULA) else "") + value.replace("\r", " ")

    return frame.apply(lambda column: column if is_numeric_dtype(column) else column.map(quoted)).rename(columns=quoted)


def _is_control(character: str) -> bool:
    return character in BIDIRECTIONAL or unicodedata.category(character) in HIDDEN


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class _Brief(reprlib.Repr):
    """Of containers a few members, two levels deep; of text and bytes the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = self.maxarray = 4
        self.maxstring = self.maxother = self.maxlong = LONGEST

    def repr_bytes(self, value: bytes, level: int) -> str:  # noqa: ARG002
        return repr(value[:LONGEST])

    def repr_bytearray(self, value: bytearray, level: int) -> str:  # noqa: ARG002
        return repr(value[:LONGEST])

    def repr_int(self, value: int, level: int) -> str:
        # Writing out a number of a million digits takes seconds, and Python refuses more than some thousands.
        return super().repr_int(value, level) if value.bit_length() < 1000 else f"a number of {value.bit_length()} bits"


_BRIEF = _Brief()
