"""A figure's numbers: as CSV for programs, as an HTML table for people."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from lucidate.core.text import csv_of
from lucidate.report.labels import escape

MAX_ROWS = 1_000  # in a page; the CSV has all


@dataclass(frozen=True, eq=False)
class Table:
    """name: of its CSV file, without the ending."""

    title: str
    name: str
    frame: pd.DataFrame

    def csv(self) -> str:
        """All rows, numbers in full precision; no cell is a formula to a spreadsheet."""
        return csv_of(self.frame)

    def html(self) -> str:
        """The first 1,000 rows; headings of columns and rows are marked as such."""
        numeric = [bool(pd.api.types.is_numeric_dtype(kind)) for kind in self.frame.dtypes]
        heads = "".join(
            f'<th scope="col"{_number(is_number)}>{escape(str(column).replace("_", " "))}</th>'
            for column, is_number in zip(self.frame.columns, numeric, strict=True)
        )
        rows: list[str] = []
        for row in self.frame.head(MAX_ROWS).itertuples(index=False, name=None):
            first, *rest = (_cell(value) for value in row)
            cells = "".join(f"<td{_number(n)}>{cell}</td>" for cell, n in zip(rest, numeric[1:], strict=True))
            rows.append(f'<tr><th scope="row"{_number(numeric[0])}>{first}</th>{cells}</tr>')
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _number(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _cell(value: object) -> str:
    if isinstance(value, float):
        if value != value:
            return "–"
        short = f"{value:.4g}"
        return "0.9999" if short == "1" and value < 1 else short  # all but sure is not sure
    return f"{value:,}" if isinstance(value, int) else escape(str(value))
