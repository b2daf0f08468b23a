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
    """Text in one line that changes nothing but the place where it stands; letters of all scripts stay as they are.

    Control characters, line ends, bidirectional marks and bytes that are no UTF-8 are shown as Python escapes them.
    """
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def one_line(error: BaseException, *, limit: int = 160) -> str:
    """What an error says, as part of a line of ours: without line ends, cut to `limit` characters."""
    return " ".join(str(error).split())[:limit]


def brief(value: object) -> str:
    """A value as Python writes it, cut to 60 characters before a text that may fill the memory is written out."""
    text = _BRIEF.repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def csv_of(frame: pd.DataFrame, *, float_format: str | None = None) -> str:
    """All rows, numbers in full precision unless a format is given; no cell is a formula to a spreadsheet.

    A text that would be taken for one, column names too, has an apostrophe before it; a carriage return, which many
    programs take for the end of a row, becomes a blank. Source: OWASP, "CSV Injection".
    """
    from pandas.api.types import is_numeric_dtype  # here, since pandas takes half a second to load

    def quoted(value: object) -> object:
        if not isinstance(value, str):
            return value
        return ("'" if value.startswith(FORMULA) else "") + value.replace("\r", " ")

    safe = frame.apply(lambda column: column if is_numeric_dtype(column) else column.map(quoted)).rename(columns=quoted)
    return safe.to_csv(index=False, lineterminator="\n", float_format=float_format)


def _shown(character: str) -> str:
    if character in BIDIRECTIONAL or unicodedata.category(character) in HIDDEN:
        return character.encode("unicode_escape").decode("ascii")
    return character


class _Brief(reprlib.Repr):
    def repr_bytes(self, value: bytes | bytearray, level: int) -> str:  # noqa: ARG002
        return repr(value[:LONGEST])

    repr_bytearray = repr_bytes

    def repr_int(self, value: int, level: int) -> str:
        # Writing out a number of a million digits takes seconds, and Python refuses more than some thousands.
        return super().repr_int(value, level) if value.bit_length() < 1000 else f"a number of {value.bit_length()} bits"


_BRIEF = _Brief()
_BRIEF.maxlevel = 2  # of containers within containers
_BRIEF.maxtuple = _BRIEF.maxlist = _BRIEF.maxdict = _BRIEF.maxset = _BRIEF.maxfrozenset = _BRIEF.maxarray = 4
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = LONGEST
