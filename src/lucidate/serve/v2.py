"""The Open Inference Protocol, version 2, over HTTP: `tritonclient` and KServe's probes work unchanged.

Images go in as `images`: UINT8 or FP32 of 0 to 255, (n, S, S, 3), or BYTES, (n), which are encoded images of any size.
Out come calibrated `probabilities`, FP32 (n, K); `logits` for whoever names them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from lucidate import __version__
from lucidate.data.decode import DecodeError, image_size
from lucidate.serve import tensors
from lucidate.serve.engine import INPUT, LOGITS, PROBABILITIES, STEPS, Duration
from lucidate.serve.errors import BadRequest, RequestError
from lucidate.serve.images import decode_images
from lucidate.serve.middleware import require_admin
from lucidate.serve.repository import Answers, ModelVersion
from lucidate.serve.request_body import in_thread_if_large, parse_json
from lucidate.serve.settings import JsonLimits, Settings
from lucidate.serve.state import json_response, state_of
from lucidate.serve.tensors import HEADER_LENGTH, InferRequest, Output, Wanted

PLATFORM = "onnxruntime_onnx"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
)
SMALL = JsonLimits(bytes=65_536, values=4096)
BRIGHTEST = 255
VALUE_BYTES = 16  # of an answer, about


# Inference


async def infer(request: Request) -> Response:
    served, settings, headers = _served(request), state_of(request).settings, request.headers
    content = await request.body()
    length, most = headers.get(HEADER_LENGTH), settings.max_images
    read = partial(tensors.read_request, content, length, json=settings.json_limits, images=most)
    inference = await in_thread_if_large(len(content), read)
    images = await _images(inference, served, settings)
    timeout = min(inference.timeout, settings.request_timeout)
    answers = await served.answer(images, timeout=timeout)
    head: dict[str, Any] = {"model_name": served.name, "model_version": served.version}
    if inference.id is not None:
        head["id"] = inference.id

    def encode() -> tuple[bytes, int | None, str | None]:
        whole, json_length = tensors.write_answer(head, [_output(one, answers, served) for one in inference.outputs])
        packed, coding = tensors.compressed(whole, headers.get("accept-encoding", ""))
        return packed, json_length, coding

    size = answers.logits.size * len(inference.outputs) * VALUE_BYTES
    body, json_length, coding = await in_thread_if_large(size, encode)
    response = Response(body, media_type="application/json" if json_length is None else "application/octet-stream")
    if json_length is not None:
        response.headers[HEADER_LENGTH] = str(json_length)
    if coding is not None:
        response.headers["Content-Encoding"] = coding
    return response


def _output(wanted: Wanted, answers: Answers, served: ModelVersion) -> Output:
    values = answers.logits if wanted.name == LOGITS else answers.probabilities.astype(np.float32)
    shown = values if wanted.classes is None else tensors.in_words(values, served.classes, wanted.classes)
    return Output(wanted.name, shown, wanted.binary)


async def _images(inference: InferRequest, served: ModelVersion, settings: Settings) -> NDArray[np.uint8]:
    """The request's images, (n, S, S, 3), whichever way they came."""
    data, shape, size = inference.data, inference.shape, served.image_size
    if isinstance(data, bytes):
        if _is_pixels(data, size):
            return np.frombuffer(data, np.uint8).reshape(1, size, size, 3)
        return await _decoded([data], size, settings.max_pixels)
    if isinstance(data, list):
        if shape not in ((len(data),), (len(data), 1)):
            raise BadRequest(f"input {INPUT!r}: expected encoded images of shape [n], received {list(shape)}")
        return await _decoded(data, size, settings.max_pixels)
    if len(shape) != 4 or shape[1:] != (size, size, 3):
        raise BadRequest(f"input {INPUT!r}: expected shape [n,{size},{size},3], received {list(shape)}")
    return await in_thread_if_large(data.nbytes, partial(_pixels, data))


def _pixels(data: NDArray[Any]) -> NDArray[np.uint8]:
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


async def _decoded(blobs: list[bytes], size: int, max_pixels: int) -> NDArray[np.uint8]:
    """All of them, or the first one's error: a tensor has no room for what went wrong with a part of it."""
    images: list[NDArray[np.uint8]] = []
    for index, found in enumerate(await decode_images(blobs, size=size, max_pixels=max_pixels)):
        if isinstance(found, RequestError):
            if len(blobs) > 1:
                raise RequestError(f"image {index}: {found.message}", status=found.status, headers=found.headers)
            raise found.anew()
        images.append(found)
    return np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)


# Health, metadata, statistics


def _served(request: Request) -> ModelVersion:
    return state_of(request).repository.get(request.path_params["model"], request.path_params.get("version"))


async def live(request: Request) -> Response:  # noqa: ARG001
    """The process answers; nothing else is asked."""
    return json_response({"live": True})


async def ready(request: Request) -> Response:
    """Every model answers, and the server is not about to end."""
    state = state_of(request)
    if state.life.draining:
        raise RequestError("the server is about to end", status=503)
    if not (state.life.ready and state.repository.ready):
        raise RequestError("models are being loaded", status=503, headers={"Retry-After": "1"})
    return json_response({"ready": True})


async def server(request: Request) -> Response:  # noqa: ARG001
    return json_response(server_metadata())


def server_metadata() -> dict[str, Any]:
    return {"name": "lucidate", "version": __version__, "extensions": EXTENSIONS}


async def model_ready(request: Request) -> Response:
    return json_response({"name": _served(request).name, "ready": True})


async def metadata(request: Request) -> Response:
    """One input and one output, as clients that look them up expect. -1: any number of images."""
    served = _served(request)
    shape = [-1, served.image_size, served.image_size, 3]
    return json_response(
        {
            "name": served.name,
            "versions": [served.version],
            "platform": PLATFORM,
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": shape}],
            "outputs": [{"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, len(served.classes)]}],
        }
    )


async def config(request: Request) -> Response:
    """Triton's form of it. Dimensions are of one image; max_batch_size: of one request."""
    served = _served(request)
    temperature = served.calibration.temperature
    how = "not calibrated" if temperature == 1 else f"calibrated: softmax of logits / {temperature:.6g}"
    told = {
        "input": "RGB, 0 to 255; also FP32 of the same range, or BYTES: encoded images, any size",
        "output": f"{how}; {LOGITS} where they are asked for by name",
        "calibrated": "true" if temperature != 1 else "false",
        "temperature": f"{temperature:.9g}",
        "views": served.calibration.views,
        "classes": "\n".join(served.classes),
    }
    taken = {"data_type": "TYPE_UINT8", "format": "FORMAT_NHWC", "dims": [served.image_size, served.image_size, 3]}
    given = {"data_type": "TYPE_FP32", "dims": [len(served.classes)], "label_filename": "labels.txt"}
    return json_response(
        {
            "name": served.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": state_of(request).settings.max_images,
            "input": [{"name": INPUT, **taken}],
            "output": [{"name": PROBABILITIES, **given}],
            "dynamic_batching": {"max_queue_delay_microseconds": 0},
            "parameters": {name: {"string_value": text} for name, text in told.items()},
        }
    )


async def statistics(request: Request) -> Response:
    return json_response({"model_stats": [model_statistics(_served(request))]})


async def all_statistics(request: Request) -> Response:
    return json_response({"model_stats": [model_statistics(served) for served in state_of(request).repository]})


def model_statistics(served: ModelVersion) -> dict[str, Any]:
    """Since the version was loaded. Durations are nanoseconds of requests, but in batch_stats of executions."""
    known = served.engine.statistics
    durations = {name: getattr(known, name) for name in ("success", "fail", "queue", *STEPS)}
    return {
        "name": served.name,
        "version": served.version,
        "last_inference": known.last_inference,
        "inference_count": known.images,
        "execution_count": known.executions,
        "inference_stats": {**durations, "cache_hit": Duration(), "cache_miss": Duration()},
        "batch_stats": [
            {"batch_size": size, **dict(zip(STEPS, taken, strict=True))}
            for size, taken in sorted(known.batches.items())
        ],
    }


# The repository


async def index(request: Request) -> Response:
    """The models that can be served. A body {"ready": true} leaves out those that are not ready."""
    only_ready = (await _body(request)).get("ready", False)
    if not isinstance(only_ready, bool):
        raise BadRequest("ready: expected true or false, received something else")
    entries = state_of(request).repository.index()
    return json_response([entry for entry in entries if entry.state == "READY" or not only_ready])


async def load(request: Request) -> Response:
    """Read a model anew from its own folder; its files and settings cannot be sent."""
    state = state_of(request)
    require_admin(request, state.settings)
    if (await _body(request)).get("parameters"):
        raise BadRequest("parameters: expected none; models are loaded from their own folders, as they are")
    served = await state.repository.load(request.path_params["model"])
    return json_response({"name": served.name, "version": served.version})


async def unload(request: Request) -> Response:
    state = state_of(request)
    require_admin(request, state.settings)
    await _body(request)
    await state.repository.unload(request.path_params["model"])
    return json_response({"name": request.path_params["model"]})


async def _body(request: Request) -> dict[str, object]:
    """A small body; none is an empty object. Raises BadRequest, and RequestError (413) for a large one."""
    body = await request.body()
    if not body:
        return {}
    try:
        value = parse_json(body, limits=SMALL, instead="nothing in it is looked at but what the protocol names")
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise BadRequest("body: expected a JSON object or nothing, received something else")
    return value
