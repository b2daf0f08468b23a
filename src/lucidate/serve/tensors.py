"""The Open Inference Protocol's tensors: requests with JSON, or bytes behind the JSON, and answers in either form.

Numbers are little-endian and row-major. A text (BYTES) is its length in four bytes, then itself; in JSON, where raw
bytes cannot stand, it is base64. Whatever is malformed raises BadRequest with one sentence. Bodies are read here, not
by a model of fields: the client sends no Content-Type, and mostly bytes.
"""

from __future__ import annotations

import base64
import gzip
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf, prod
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from lucidate.serve.engine import INPUT, LOGITS, PROBABILITIES
from lucidate.serve.errors import BadRequest, RequestError
from lucidate.serve.request_body import parse_json
from lucidate.serve.settings import JsonLimits

HEADER_LENGTH = "Inference-Header-Content-Length"
NUMBER = re.compile(r"[0-9]{1,10}")
DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("<u1"), "FP32": np.dtype("<f4")}  # of images that come as numbers
WHAT = f"input {INPUT!r}"
MOST_DIMENSIONS = 16
MOST_OUTPUTS = 16
MOST_LETTERS = 1024  # of a request's id, which its answer repeats
MOST_PARAMETERS = 64  # of one tensor, or of the request
SMALLEST = 512  # bytes of an answer; to compress fewer is not worth the time, and gains nothing
LEVEL = 4  # of 9: the later ones take twice the time for a few percent


@dataclass(frozen=True)
class Wanted:
    """An output that was asked for. classes: so many best ones in words, in place of the numbers."""

    name: str
    binary: bool
    classes: int | None = None


@dataclass(frozen=True, eq=False)
class InferRequest:
    """data: of its one input, an array; of BYTES, a list of texts; of a body without JSON, itself.

    shape: that the input has. timeout: seconds.
    """

    data: NDArray[Any] | list[bytes] | bytes
    shape: tuple[int, ...]
    outputs: tuple[Wanted, ...]
    id: str | None = None
    timeout: float = inf


def read_request(body: bytes, header_length: str | None, *, json: JsonLimits, images: int) -> InferRequest:
    """A request's body. Raises BadRequest, and RequestError (413) for more JSON or more images than are let in.

    header_length: of its header Inference-Header-Content-Length: how much of it is JSON, before the bytes. images: the
    most that its input may have, by the first of its sides: what a client claims is checked before it is read.
    """
    length = len(body)
    if header_length is not None:
        if not NUMBER.fullmatch(header_length) or int(header_length) > len(body):
            raise BadRequest(f"{HEADER_LENGTH}: expected 0 to {len(body)}, received another value")
        length = int(header_length)
        if length == 0:
            return InferRequest(body, (len(body),), (Wanted(PROBABILITIES, binary=True),))
    try:
        text = body[:length] if length < len(body) else body
        head = _object(parse_json(text, limits=json, instead="send tensors as bytes"), "body")
    except orjson.JSONDecodeError:
        raise BadRequest("body: expected JSON (without NaN or Infinity), received something else") from None
    parameters = _parameters(head, "request")
    identity, timeout = head.get("id"), parameters.get("timeout", 0)
    if identity is not None and not (isinstance(identity, str) and len(identity) <= MOST_LETTERS):
        raise BadRequest(f"id: expected a text of at most {MOST_LETTERS:,} letters, received something else")
    if type(timeout) is not int or not 0 <= timeout < 2**63:
        raise BadRequest("timeout: expected whole microseconds, received something else")
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise BadRequest("binary_data_output: expected true or false, received something else")
    outputs = _outputs(head.get("outputs"), binary)
    data, shape = _input(head.get("inputs"), memoryview(body)[length:], images)
    return InferRequest(data, shape, outputs, identity, timeout / 1e6 or inf)  # 0: as long as anybody


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


def _outputs(values: Any, binary: bool) -> tuple[Wanted, ...]:
    if values is None or values == []:
        return (Wanted(PROBABILITIES, binary),)
    if not isinstance(values, list):
        raise BadRequest("outputs: expected a list, received something else")
    if len(values) > MOST_OUTPUTS:
        raise BadRequest(f"outputs: expected at most {MOST_OUTPUTS}, received {len(values):,}")
    outputs: dict[str, Wanted] = {}
    for value in values:
        one = _object(value, "outputs")
        name = one.get("name")
        if not isinstance(name, str):
            raise BadRequest("outputs: expected a name for each, received one without")
        if name not in (PROBABILITIES, LOGITS):
            raise BadRequest(f"outputs: expected {PROBABILITIES} or {LOGITS}, received {name[:80]!r}")
        if name in outputs:
            raise BadRequest(f"outputs: expected each name once, received {name!r} twice")
        parameters = _parameters(one, f"output {name!r}")
        as_bytes, classes = parameters.get("binary_data", binary), parameters.get("classification")
        if not isinstance(as_bytes, bool):
            raise BadRequest(f"output {name!r}: binary_data: expected true or false, received something else")
        if classes is not None and (type(classes) is not int or classes < 0):
            raise BadRequest(f"output {name!r}: classification: expected a number of classes, received another")
        outputs[name] = Wanted(name, as_bytes, classes or None)
    return tuple(outputs.values())


def _input(values: Any, blobs: memoryview, most: int) -> tuple[NDArray[Any] | list[bytes], tuple[int, ...]]:
    if not isinstance(values, list) or not values:
        raise BadRequest("inputs: expected a list of tensors, received none")
    if len(values) > 1:
        raise BadRequest(f"inputs: expected one, received {len(values):,}")
    one = _object(values[0], "inputs")
    name, datatype = one.get("name"), one.get("datatype")
    shape: Any = one.get("shape")
    if name != INPUT:
        raise BadRequest(f"inputs: expected {INPUT!r}, received {_shown(name)}")
    short = isinstance(shape, list) and 0 < len(shape) <= MOST_DIMENSIONS
    if not short or not all(type(side) is int and 0 <= side < 2**31 for side in shape):
        raise BadRequest(f"{WHAT}: expected a shape of whole numbers, 0 or more, received another")
    shape = tuple(shape)
    if datatype not in (*DTYPES, "BYTES"):
        raise BadRequest(f"{WHAT}: expected UINT8, FP32 or BYTES, received {_shown(datatype)}")
    # Each text is an image. Those of no length would take a second a million before their number was known.
    images = prod(shape) if datatype == "BYTES" else shape[0]
    if images > most:
        raise RequestError(f"images: expected at most {most:,} in a request, received {images:,}", status=413)
    size = _parameters(one, WHAT).get("binary_data_size")
    if size is None:
        data = _from_json(one.get("data"), datatype, shape)
        size = 0
    elif "data" in one:
        raise BadRequest(f"{WHAT}: expected data or binary_data_size, received both")
    elif not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(blobs):
        raise BadRequest(f"{WHAT}: expected binary_data_size of 0 to {len(blobs)}, received another")
    else:
        data = _from_bytes(blobs[:size], datatype, shape)
    if size != len(blobs):
        raise BadRequest(f"body: expected {size} bytes of tensors after the JSON, received {len(blobs)}")
    return data, shape


def _shown(value: Any) -> str:
    return repr(value[:80]) if isinstance(value, str) else "something else"


def _from_bytes(blob: memoryview, datatype: str, shape: tuple[int, ...]) -> NDArray[Any] | list[bytes]:
    count = prod(shape)
    if datatype == "BYTES":
        return _texts(blob, count)
    dtype = DTYPES[datatype]
    if count * dtype.itemsize != len(blob):
        raise BadRequest(f"{WHAT}: expected {count * dtype.itemsize} bytes by its shape, received {len(blob)}")
    return np.frombuffer(blob, dtype).reshape(shape)


def _texts(blob: memoryview, count: int) -> list[bytes]:
    texts: list[bytes] = []
    position = 0
    while position < len(blob):
        if len(texts) == count or position + 4 > len(blob):
            raise BadRequest(f"{WHAT}: expected {count} texts with their lengths before them, received others")
        (length,) = struct.unpack_from("<I", blob, position)
        position += 4
        if position + length > len(blob):
            raise BadRequest(f"{WHAT}: expected a text of {length} bytes, received {len(blob) - position}")
        texts.append(bytes(blob[position : position + length]))
        position += length
    if len(texts) != count:
        raise BadRequest(f"{WHAT}: expected {count} texts by its shape, received {len(texts)}")
    return texts


def _from_json(data: Any, datatype: str, shape: tuple[int, ...]) -> NDArray[Any] | list[bytes]:
    if not isinstance(data, list):
        raise BadRequest(f"{WHAT}: expected data, a list, received none")
    flat, sides = _flat(data)
    count = prod(shape)
    if datatype == "BYTES":
        return _from_base64(flat, count)
    if len(flat) != count or (len(sides) != 1 and sides != shape):
        raise BadRequest(f"{WHAT}: expected {count} values by its shape, flat or nested as it says, received others")
    # Before NumPy sees them: beside one long text it would give every other value as much memory.
    if not set(map(type, flat)) <= {int, float, bool}:
        raise BadRequest(f"{WHAT}: expected numbers, received something else")
    dtype = DTYPES[datatype]
    values = np.array(flat) if flat else np.empty(0, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = values.astype(dtype)
        # A number that its datatype cannot hold would come out as another.
        if dtype.kind == "u" and not np.array_equal(converted, values):
            raise BadRequest(f"{WHAT}: expected values of {datatype}, received others")
    return converted.reshape(shape)


def _flat(data: list[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """The values of lists in lists, and how many stand in each level. Raises BadRequest where lists differ."""
    sides = [len(data)]
    while data and isinstance(data[0], list):
        if len(sides) == MOST_DIMENSIONS or set(map(type, data)) != {list} or len(set(map(len, data))) != 1:
            raise BadRequest(f"{WHAT}: expected data of one shape, received lists of several")
        sides.append(len(data[0]))
        data = list(chain.from_iterable(data))
    return data, tuple(sides)


def _from_base64(texts: list[Any], count: int) -> list[bytes]:
    if len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise BadRequest(f"{WHAT}: expected {count} texts in base64, received something else")
    try:
        return [base64.b64decode(text, validate=True) for text in texts]
    except ValueError:
        raise BadRequest(f"{WHAT}: expected base64, received something else") from None


# Answers


@dataclass(frozen=True, eq=False)
class Output:
    """values: float32 of any shape, or (n, k) texts."""

    name: str
    values: NDArray[np.float32] | list[list[str]]
    binary: bool


def write_answer(head: dict[str, Any], outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """A whole answer, and how many of its bytes are JSON where others follow. head: all but its outputs."""
    described: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for output in outputs:
        data: NDArray[np.float32] | list[str]
        if isinstance(output.values, list):
            datatype, shape = "BYTES", [len(output.values), len(output.values[0]) if output.values else 0]
            data = list(chain.from_iterable(output.values))
        else:
            datatype, shape = "FP32", list(output.values.shape)
            data = np.ascontiguousarray(output.values, "<f4").reshape(-1)
        one: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": shape}
        if output.binary:
            blobs.append(_packed(data) if isinstance(data, list) else data.tobytes())
            one["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            one["data"] = data
        described.append(one)
    text = orjson.dumps({**head, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)


def _packed(texts: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, texts))


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
