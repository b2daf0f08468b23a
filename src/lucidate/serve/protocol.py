"""The Open Inference Protocol, version 2, over HTTP: `tritonclient` and KServe's probes work unchanged.

Images go in as `images`: UINT8 or FP32 of 0 to 255, (n, S, S, 3), or BYTES, (n), which are encoded images of any size.
Out come calibrated `probabilities`, FP32 (n, K); `logits` for whoever names them. Bodies are read here, not by a model
of fields: the client sends no Content-Type, and mostly bytes.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from lucidate.data.decode import DecodeError, image_size
from lucidate.serve.engine import INPUT, LOGITS, PROBABILITIES
from lucidate.serve.errors import BadRequest, RequestError
from lucidate.serve.images import ImageLimits, decode_images
from lucidate.serve.model_version import Answers, ModelVersion
from lucidate.serve.request_body import in_thread_if_large
from lucidate.serve.settings import Settings
from lucidate.serve.state import state_of
from lucidate.serve.tensors import HEADER_LENGTH, InferRequest, Tensor, Wanted, read_request

BRIGHTEST = 255
VALUE_BYTES = 16  # of an answer, about


async def infer(request: Request) -> Response:
    """POST /v2/models/{model}[/versions/{version}]/infer."""
    state = state_of(request)
    served = state.repository.get(request.path_params["model"], request.path_params.get("version"))
    headers = request.headers
    settings = state.settings
    content = await request.body()
    read = partial(
        read_request,
        content,
        header_length=headers.get(HEADER_LENGTH),
        json=settings.json_limits,
        images=settings.max_images,
    )
    inference = await in_thread_if_large(len(content), read)
    wanted = _wanted(inference)
    timeout = min(_timeout(inference) or inf, settings.request_timeout)
    images = await _images(inference, served, settings)
    answers = await served.answer(images, timeout=timeout)
    head: dict[str, Any] = {"model_name": served.name, "model_version": served.version}
    if inference.id is not None:
        head["id"] = inference.id
    accepted = headers.get("accept-encoding", "")

    def encode() -> tuple[bytes, int | None, str | None]:
        whole, json_length = write_answer(head, [_answer(one, answers, served) for one in wanted])
        packed, coding = compressed(whole, accepted)
        return packed, json_length, coding

    body, json_length, coding = await in_thread_if_large(answers.logits.size * len(wanted) * VALUE_BYTES, encode)
    response = Response(body, media_type="application/json" if json_length is None else "application/octet-stream")
    if json_length is not None:
        response.headers["Inference-Header-Content-Length"] = str(json_length)
    if coding is not None:
        response.headers["Content-Encoding"] = coding
    return response


def _wanted(inference: InferRequest) -> tuple[Wanted, ...]:
    if inference.outputs is None:
        return (Wanted(PROBABILITIES, inference.binary),)
    for one in inference.outputs:
        if one.name not in (PROBABILITIES, LOGITS):
            raise BadRequest(f"outputs: expected {PROBABILITIES} or {LOGITS}, received {one.name[:80]!r}")
    return inference.outputs


def _timeout(inference: InferRequest) -> float | None:
    """Seconds, of the protocol's microseconds; None where none, or 0, was given."""
    given = inference.parameters.get("timeout", 0)
    if type(given) is not int or not 0 <= given < 2**63:
        raise BadRequest("timeout: expected whole microseconds, received something else")
    return given / 1e6 if given else None


def _answer(wanted: Wanted, answers: Answers, served: ModelVersion) -> Answer:
    values = answers.logits if wanted.name == LOGITS else answers.probabilities.astype(np.float32)
    if wanted.classes is not None:
        return Answer(wanted.name, in_words(values, served.classes, wanted.classes), wanted.binary)
    return Answer(wanted.name, values, wanted.binary)


async def _images(inference: InferRequest, served: ModelVersion, settings: Settings) -> NDArray[np.uint8]:
    """The request's images, (n, S, S, 3), whichever way they came."""
    size = served.image_size
    limits = ImageLimits(images=settings.max_images, pixels=settings.max_pixels)
    if inference.raw is not None:
        if _is_pixels(inference.raw, size):
            return np.frombuffer(inference.raw, np.uint8).reshape(1, size, size, 3)
        return await _decoded([inference.raw], size, limits)
    (tensor,) = inference.inputs
    if tensor.name != INPUT:
        raise BadRequest(f"inputs: expected {INPUT!r}, received {tensor.name[:80]!r}")
    if isinstance(tensor.data, list):
        if tensor.shape not in ((len(tensor.data),), (len(tensor.data), 1)):
            raise BadRequest(f"input {INPUT!r}: expected encoded images of shape [n], received {list(tensor.shape)}")
        return await _decoded(tensor.data, size, limits)
    return await in_thread_if_large(tensor.data.nbytes, partial(_pixels, tensor, tensor.data, size))


def _pixels(tensor: Tensor, data: NDArray[Any], size: int) -> NDArray[np.uint8]:
    if tensor.datatype not in ("UINT8", "FP32"):
        raise BadRequest(f"input {INPUT!r}: expected UINT8, FP32 or BYTES, received {tensor.datatype}")
    if len(tensor.shape) != 4 or tensor.shape[1:] != (size, size, 3):
        raise BadRequest(f"input {INPUT!r}: expected shape [n,{size},{size},3], received {list(tensor.shape)}")
    if data.dtype == np.uint8:
        return data
    # Comparisons with NaN are false.
    if not ((data >= 0) & (data <= BRIGHTEST)).all():
        raise BadRequest(f"input {INPUT!r}: expected numbers from 0 to 255, received others")
    whole = np.rint(data)
    if data.size and data.max() <= 1 and not np.array_equal(whole, data):
        raise BadRequest(f"input {INPUT!r}: expected values from 0 to 255, received fractions from 0 to 1")
    return whole.astype(np.uint8)


def _is_pixels(body: bytes, size: int) -> bool:
    """Whether a body without a description is one image's pixels, rather than a file that happens to be as long."""
    if len(body) != size * size * 3:
        return False
    try:
        image_size(body)
    except DecodeError:
        return True
    return False


async def _decoded(blobs: list[bytes], size: int, limits: ImageLimits) -> NDArray[np.uint8]:
    """All of them, or the first one's error: a tensor has no room for what went wrong with a part of it."""
    images: list[NDArray[np.uint8]] = []
    for index, found in enumerate(await decode_images(blobs, size=size, limits=limits)):
        if isinstance(found, RequestError):
            if len(blobs) > 1:
                raise RequestError(f"image {index}: {found.message}", status=found.status, headers=found.headers)
            raise found.anew()
        images.append(found)
    return np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)


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
