"""An answer as the Open Inference Protocol sends it: the same two forms as in `tensors`, compressed where asked for."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

SMALLEST = 512  # bytes; fewer are not worth the time, and gain nothing
LEVEL = 4  # of 9: the later ones take twice the time for a few percent


@dataclass(frozen=True, eq=False)
class Answer:
    """An output. values: float32, or of classes (n, k) texts."""

    name: str
    values: NDArray[np.float32] | list[list[str]]
    binary: bool

    @property
    def datatype(self) -> str:
        return "BYTES" if isinstance(self.values, list) else "FP32"

    @property
    def shape(self) -> list[int]:
        if isinstance(self.values, list):
            return [len(self.values), len(self.values[0]) if self.values else 0]
        return list(self.values.shape)

    def encoded(self) -> bytes:
        """As it stands behind the JSON."""
        if isinstance(self.values, list):
            texts = [text.encode() for row in self.values for text in row]
            return b"".join(struct.pack("<I", len(text)) + text for text in texts)
        return self.values.astype("<f4", copy=False).tobytes()


def write_answer(head: dict[str, Any], outputs: Sequence[Answer]) -> tuple[bytes, int | None]:
    """A whole answer, and how many of its bytes are JSON where others follow. head: all but its outputs."""
    described: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for output in outputs:
        one: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if output.binary:
            blobs.append(output.encoded())
            one["parameters"] = {"binary_data_size": len(blobs[-1])}
        elif isinstance(output.values, list):
            one["data"] = [text for row in output.values for text in row]
        else:
            one["data"] = np.ascontiguousarray(output.values).reshape(-1)
        described.append(one)
    text = orjson.dumps({**head, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)


def in_words(values: NDArray[np.float32], names: Sequence[str], count: int) -> list[list[str]]:
    """The `count` best classes of each row as "value:index:name", the best first; the lower index on a tie."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    return [[f"{row[k]:.6f}:{k}:{names[k]}" for k in best] for row, best in zip(values, order.tolist(), strict=True)]


def compressed(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """A body and its Content-Encoding, by what Accept-Encoding allows of gzip and deflate (zlib's format, RFC 9110)."""
    if len(body) < SMALLEST or not accepted:
        return body, None
    allowed = set()
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if weight.strip().replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            allowed.add(coding.strip())
    if "gzip" in allowed:
        return gzip.compress(body, LEVEL, mtime=0), "gzip"
    if "deflate" in allowed:
        return zlib.compress(body, LEVEL), "deflate"
    return body, None
