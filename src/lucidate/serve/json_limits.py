"""JSON in a request, read within bounds: parsing is one step of the interpreter, in which nobody else is served.

What it takes goes by how many values there are, far more than by their bytes: 500,000 lists in lists take 40 ms and
1 MB, one image in base64 takes as long at 60 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from lucidate.serve.errors import RequestError


@dataclass(frozen=True)
class JsonLimits:
    """What one body may hold. values: numbers, texts, lists and objects, by the commas and brackets that part them."""

    bytes: int = 16_777_216
    values: int = 500_000


def parsed(text: bytes, *, limits: JsonLimits, instead: str) -> Any:
    """What a JSON text says. instead: what to do about too large a one, for its error.

    Raises RequestError (413) before anything is parsed, orjson.JSONDecodeError.
    """
    if len(text) > limits.bytes:
        raise RequestError(
            f"body: expected at most {limits.bytes:,} bytes of JSON, received {len(text):,}; {instead}", status=413
        )
    if len(text) > limits.values and sum(map(text.count, (b",", b"[", b"{"))) > limits.values:
        raise RequestError(
            f"body: expected at most {limits.values:,} values in JSON, received more; {instead}", status=413
        )
    return orjson.loads(text)
