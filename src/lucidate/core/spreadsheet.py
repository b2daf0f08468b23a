"""Tables as CSV that a spreadsheet can open without harm."""

from __future__ import annotations

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a text that is taken for a formula begins with


def csv_of(frame: pd.DataFrame, *, float_format: str | None = None) -> str:
    """All rows, numbers in full precision unless a format is given; no cell is a formula to a spreadsheet."""
    return no_formulas(frame).to_csv(index=False, lineterminator="\n", float_format=float_format)


def no_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with an apostrophe before each text, column names too, that a spreadsheet would take for a formula.

    Source: OWASP, "CSV Injection". Numbers stay as they are, those below 0 too. A carriage return, which many programs
    take for the end of a row, becomes a blank.
    """

    def quoted(value: object) -> object:
        if not isinstance(value, str):
            return value
        return ("'" if value.startswith(FORMULA) else "") + value.replace("\r", " ")

    return frame.apply(lambda column: column if pd.api.types.is_numeric_dtype(column) else column.map(quoted)).rename(
        columns=quoted
    )
