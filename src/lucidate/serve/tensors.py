"""A request for inference as the Open Inference Protocol sends it: tensors in JSON, or as bytes behind the JSON.

Numbers are little-endian and row-major. A text (BYTES) is its length in four bytes, then itself; in JSON, where raw
bytes cannot stand, it is base64. Whatever is malformed raises BadRequest with one sentence.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from lucidate.serve.errors import BadRequest, RequestError
from lucidate.serve.request_body import parse_json
from lucidate.serve.settings import JsonLimits

HEADER_LENGTH = "inference-header-content-length"
NUMBER = re.compile(r"[0-9]{1,10}")
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
BINARY_ONLY = ("FP16", "BF16")  # JSON has no form for them
MOST_DIMENSIONS = 16
MOST_OUTPUTS = 16
MOST_LETTERS = 1024  # of a request's id, which its answer repeats
MOST_PARAMETERS = 64  # of one tensor, or of the request


@dataclass(frozen=True, eq=False)
class Tensor:
    """An input. data: an array of `shape`; of BYTES, a list of as many texts as `shape` has elements."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: NDArray[Any] | list[bytes]


@dataclass(frozen=True)
class Wanted:
    """An output that was asked for. classes: so many best ones in words, in place of the numbers."""

    name: str
    binary: bool
    classes: int | None = None


@dataclass(frozen=True, eq=False)
class InferRequest:
    """outputs: None where none were named. binary: whether these are then wanted as bytes. raw: a body without JSON."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Wanted, ...] | None = None
    binary: bool = False
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes | None = None


def read_request(body: bytes, header_length: str | None, *, json: JsonLimits, images: int) -> InferRequest:
    """A request's body. Raises BadRequest, and RequestError (413) for more JSON or more images than are let in.

    header_length: of its header Inference-Header-Content-Length: how much of it is JSON, before the bytes. images: the
    most that its input may have, by the first of its sides: what a client claims is checked before it is read.
    """
    length = len(body)
    if header_length is not None:
        if not NUMBER.fullmatch(header_length) or int(header_length) > len(body):
            raise BadRequest(f"Inference-Header-Content-Length: expected 0 to {len(body)}, received another value")
        length = int(header_length)
        if length == 0:
            return InferRequest(raw=body, binary=True)
    head = _object(_parsed(body[:length] if length < len(body) else body, json), "body")
    parameters = _parameters(head, "request")
    identity = head.get("id")
    if identity is not None and not (isinstance(identity, str) and len(identity) <= MOST_LETTERS):
        raise BadRequest(f"id: expected a text of at most {MOST_LETTERS:,} letters, received something else")
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise BadRequest("binary_data_output: expected true or false, received something else")
    return InferRequest(
        inputs=_inputs(head.get("inputs"), memoryview(body)[length:], images),
        outputs=_outputs(head.get("outputs"), binary),
        binary=binary,
        id=identity,
        parameters=parameters,
    )


def _parsed(text: bytes, limits: JsonLimits) -> Any:
    try:
        return parse_json(text, limits=limits, instead="send tensors as bytes")
    except orjson.JSONDecodeError:
        raise BadRequest("body: expected JSON (without NaN or Infinity), received something else") from None


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{what}: expected a JSON object, received something else")
    return value


def _parameters(holder: Mapping[str, Any], what: str) -> dict[str, Any]:
    parameters = _object(holder.get("parameters", {}), f"{what}: parameters")
    if len(parameters) > MOST_PARAMETERS:
        raise BadRequest(f"{what}: parameters: expected at most {MOST_PARAMETERS}, received {len(parameters):,}")
    for key in parameters:
        if key.startswith("triton_"):
            raise BadRequest(f"{what}: parameters: names that begin with triton_ are reserved")
        if key.startswith("shared_memory"):
            raise BadRequest(f"{what}: shared memory is not supported; send the tensor itself")
    return parameters


def _inputs(values: Any, blobs: memoryview, most: int) -> tuple[Tensor, ...]:
    if not isinstance(values, list) or not values:
        raise BadRequest("inputs: expected a list of tensors, received none")
    if len(values) > 1:
        raise BadRequest(f"inputs: expected one, received {len(values):,}")
    one = _object(values[0], "inputs")
    name = one.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest("inputs: expected a name for each, received one without")
    what = f"input {name[:80]!r}"
    shape, datatype = _shape(one.get("shape"), what), one.get("datatype")
    if not isinstance(datatype, str) or datatype not in (*DTYPES, "BF16", "BYTES"):
        raise BadRequest(f"{what}: expected a datatype such as UINT8, received another")
    # Each text is an image. Those of no length would take a second a million before their number was known.
    images = prod(shape) if datatype == "BYTES" else shape[0]
    if images > most:
        raise RequestError(f"images: expected at most {most:,} in a request, received {images:,}", status=413)
    size = _parameters(one, what).get("binary_data_size")
    if size is None:
        data = _from_json(one.get("data"), datatype, shape, what)
        size = 0
    elif "data" in one:
        raise BadRequest(f"{what}: expected data or binary_data_size, received both")
    elif not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(blobs):
        raise BadRequest(f"{what}: expected binary_data_size of 0 to {len(blobs)}, received another")
    else:
        data = _from_bytes(blobs[:size], datatype, shape, what)
    if size != len(blobs):
        raise BadRequest(f"body: expected {size} bytes of tensors after the JSON, received {len(blobs)}")
    return (Tensor(name, datatype, shape, data),)


def _shape(value: Any, what: str) -> tuple[int, ...]:
    whole = isinstance(value, list) and 0 < len(value) <= MOST_DIMENSIONS
    if not whole or not all(type(side) is int and 0 <= side < 2**31 for side in value):
        raise BadRequest(f"{what}: expected a shape of whole numbers, 0 or more, received another")
    return tuple(value)


def _from_bytes(blob: memoryview, datatype: str, shape: tuple[int, ...], what: str) -> NDArray[Any] | list[bytes]:
    count = prod(shape)
    if datatype == "BYTES":
        texts = _texts(blob, count, what)
        if len(texts) != count:
            raise BadRequest(f"{what}: expected {count} texts by its shape, received {len(texts)}")
        return texts
    # Nothing here computes with bfloat16: its bytes are only counted.
    dtype = np.dtype("<u2") if datatype == "BF16" else DTYPES[datatype]
    if count * dtype.itemsize != len(blob):
        raise BadRequest(f"{what}: expected {count * dtype.itemsize} bytes by its shape, received {len(blob)}")
    return np.frombuffer(blob, dtype).reshape(shape)


def _texts(blob: memoryview, most: int, what: str) -> list[bytes]:
    texts: list[bytes] = []
    position = 0
    while position < len(blob):
        if len(texts) == most or position + 4 > len(blob):
            raise BadRequest(f"{what}: expected {most} texts with their lengths before them, received others")
        (length,) = struct.unpack_from("<I", blob, position)
        position += 4
        if position + length > len(blob):
            raise BadRequest(f"{what}: expected a text of {length} bytes, received {len(blob) - position}")
        texts.append(bytes(blob[position : position + length]))
        position += length
    return texts


def _from_json(data: Any, datatype: str, shape: tuple[int, ...], what: str) -> NDArray[Any] | list[bytes]:
    if datatype in BINARY_ONLY:
        raise BadRequest(f"{what}: {datatype} has no form in JSON; send it as binary data")
    if not isinstance(data, list):
        raise BadRequest(f"{what}: expected data, a list, received none")
    if datatype == "BYTES":
        return _from_base64(data, shape, what)
    count, dtype = prod(shape), DTYPES[datatype]
    flat, sides = _flat(data, what)
    if len(flat) != count or (len(sides) != 1 and sides != shape):
        raise BadRequest(f"{what}: expected {count} values by its shape, flat or nested as it says, received others")
    # Before NumPy sees them: beside one long text it would give every other value as much memory.
    if not set(map(type, flat)) <= {int, float, bool}:
        raise BadRequest(f"{what}: expected numbers, received something else")
    values = np.array(flat) if flat else np.empty(0, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = values.astype(dtype)
        # A number that its datatype cannot hold would come out as another.
        if dtype.kind in "iub" and not np.array_equal(converted, values):
            raise BadRequest(f"{what}: expected values of {datatype}, received others")
    return converted.reshape(shape)


def _flat(data: list[Any], what: str) -> tuple[list[Any], tuple[int, ...]]:
    """The values of lists in lists, and how many stand in each level. Raises BadRequest where lists differ."""
    sides = [len(data)]
    while data and isinstance(data[0], list):
        if len(sides) == MOST_DIMENSIONS or set(map(type, data)) != {list} or len(set(map(len, data))) != 1:
            raise BadRequest(f"{what}: expected data of one shape, received lists of several")
        sides.append(len(data[0]))
        data = list(chain.from_iterable(data))
    return data, tuple(sides)


def _from_base64(data: list[Any], shape: tuple[int, ...], what: str) -> list[bytes]:
    while len(data) == 1 and isinstance(data[0], list):
        data = data[0]
    flat = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data]
    if len(flat) != prod(shape) or not all(isinstance(text, str) for text in flat):
        raise BadRequest(f"{what}: expected {prod(shape)} texts in base64, received something else")
    try:
        return [base64.b64decode(text, validate=True) for text in flat]
    except (binascii.Error, ValueError):
        raise BadRequest(f"{what}: expected base64, received something else") from None


def _outputs(values: Any, binary: bool) -> tuple[Wanted, ...] | None:
    if values is None or values == []:
        return None
    if not isinstance(values, list):
        raise BadRequest("outputs: expected a list, received something else")
    if len(values) > MOST_OUTPUTS:
        raise BadRequest(f"outputs: expected at most {MOST_OUTPUTS}, received {len(values):,}")
    outputs: list[Wanted] = []
    names: set[str] = set()
    for value in values:
        one = _object(value, "outputs")
        name = one.get("name")
        if not isinstance(name, str):
            raise BadRequest("outputs: expected a name for each, received one without")
        if name in names:
            raise BadRequest(f"outputs: expected each name once, received {name[:80]!r} twice")
        names.add(name)
        parameters = _parameters(one, f"output {name[:80]!r}")
        as_bytes = parameters.get("binary_data", binary)
        classes = parameters.get("classification")
        if not isinstance(as_bytes, bool):
            raise BadRequest(f"output {name[:80]!r}: binary_data: expected true or false, received something else")
        if classes is not None and (type(classes) is not int or classes < 0):
            raise BadRequest(f"output {name[:80]!r}: classification: expected a number of classes, received another")
        outputs.append(Wanted(name, as_bytes, classes or None))
    return tuple(outputs)
