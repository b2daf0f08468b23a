"""The routes of the Open Inference Protocol but inference itself: health, metadata, statistics, the repository."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import Response

from lucidate import __version__
from lucidate.serve.access import Keys
from lucidate.serve.engine import INPUT, LOGITS, PROBABILITIES, Duration
from lucidate.serve.errors import BadRequest, RequestError
from lucidate.serve.model_version import ModelVersion
from lucidate.serve.request_body import parse_json
from lucidate.serve.settings import JsonLimits
from lucidate.serve.state import State, state_of

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


def answer(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def _served(request: Request) -> ModelVersion:
    return state_of(request).repository.get(request.path_params["model"], request.path_params.get("version"))


async def live(request: Request) -> Response:  # noqa: ARG001
    """The process answers; nothing else is asked."""
    return answer({"live": True})


async def ready(request: Request) -> Response:
    """Every model answers, and the server is not about to end."""
    state = state_of(request)
    if state.life.draining:
        raise RequestError("the server is about to end", status=503)
    if not (state.life.ready and state.repository.ready):
        raise RequestError("models are being loaded", status=503, headers={"Retry-After": "1"})
    return answer({"ready": True})


async def server(request: Request) -> Response:  # noqa: ARG001
    return answer(server_metadata())


async def metadata(request: Request) -> Response:
    return answer(model_metadata(_served(request)))


async def config(request: Request) -> Response:
    return answer(model_config(_served(request), most_images=state_of(request).settings.max_images))


async def model_ready(request: Request) -> Response:
    served = _served(request)
    return answer({"name": served.name, "ready": True})


async def statistics(request: Request) -> Response:
    return answer({"model_stats": [model_statistics(_served(request))]})


async def all_statistics(request: Request) -> Response:
    return answer({"model_stats": [model_statistics(served) for served in state_of(request).repository]})


async def index(request: Request) -> Response:
    """The models that can be served. A body {"ready": true} leaves out those that are not ready."""
    wanted = await _body(request)
    only_ready = wanted.get("ready", False)
    if not isinstance(only_ready, bool):
        raise BadRequest("ready: expected true or false, received something else")
    return answer(
        [
            {"name": entry.name, "version": entry.version, "state": entry.condition, "reason": entry.reason}
            for entry in state_of(request).repository.index()
            if entry.condition == "READY" or not only_ready
        ]
    )


async def load(request: Request) -> Response:
    """Read a model anew from its own folder; its files and settings cannot be sent."""
    state = state_of(request)
    _require_admin(request, state)
    parameters = (await _body(request)).get("parameters")
    if parameters:
        raise BadRequest("parameters: expected none; models are loaded from their own folders, as they are")
    served = await state.repository.load(request.path_params["model"])
    return answer({"name": served.name, "version": served.version})


async def unload(request: Request) -> Response:
    state = state_of(request)
    _require_admin(request, state)
    await _body(request)
    await state.repository.unload(request.path_params["model"])
    return answer({"name": request.path_params["model"]})


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


def _require_admin(request: Request, state: State) -> None:
    """Raise RequestError (401, 403) for whoever may not change what is served.

    Without admin_keys, those may who can reach a server that listens on its own machine alone; pages of other sites,
    which a browser on that machine could be showing, may not.
    """
    settings = state.settings
    if settings.admin_keys:
        if Keys(settings.admin_keys).holder(dict(request.scope["headers"])) is None:
            raise RequestError(
                "key: expected one of admin_keys in X-API-Key or Authorization: Bearer",
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        return
    if not is_loopback(settings.host):
        raise RequestError("loading and unloading: expected a server with admin_keys, and one of them", status=403)
    # A name that leads here for the moment makes a page elsewhere look like one of ours: it must be the machine's own.
    host = request.headers.get("host", "")
    if not is_loopback(_address(f"//{host}")[0]):
        raise RequestError("loading and unloading: expected to be asked by way of localhost", status=403)
    origin = request.headers.get("origin")
    if origin is not None and _address(origin)[1] != host:
        raise RequestError("loading and unloading: expected no request from another site's page", status=403)


def _address(url: str) -> tuple[str, str]:
    """The host that a URL names, and the same with its port; empty where it names none."""
    try:
        found = urlsplit(url)
        return found.hostname or "", found.netloc
    except ValueError:  # brackets that are none of an address
        return "", ""


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from its own machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# What is said of a server and its models


def server_metadata() -> dict[str, Any]:
    return {"name": "lucidate", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(served: ModelVersion) -> dict[str, Any]:
    """One input and one output, as clients that look them up expect. -1: any number of images."""
    size = served.image_size
    return {
        "name": served.name,
        "versions": [served.version],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, size, size, 3]}],
        "outputs": [{"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, len(served.classes)]}],
    }


def model_config(served: ModelVersion, *, most_images: int) -> dict[str, Any]:
    """Triton's form of it. Dimensions are of one image. most_images: in one request."""
    size = served.image_size
    return {
        "name": served.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": most_images,
        "input": [{"name": INPUT, "data_type": "TYPE_UINT8", "format": "FORMAT_NHWC", "dims": [size, size, 3]}],
        "output": [
            {
                "name": PROBABILITIES,
                "data_type": "TYPE_FP32",
                "dims": [len(served.classes)],
                "label_filename": "labels.txt",
            }
        ],
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
        "parameters": {
            "input": {"string_value": "RGB, 0 to 255; also FP32 of the same range, or BYTES: encoded images, any size"},
            "output": {"string_value": f"{_how(served)}; {LOGITS} where they are asked for by name"},
            "calibrated": {"string_value": "true" if served.temperature() != 1 else "false"},
            "temperature": {"string_value": f"{served.temperature():.9g}"},
            "views": {"string_value": served.calibration.views},
            "classes": {"string_value": "\n".join(served.classes)},
        },
    }


def _how(served: ModelVersion) -> str:
    temperature = served.temperature()
    return "not calibrated" if temperature == 1 else f"calibrated: softmax of logits / {temperature:.6g}"


def model_statistics(served: ModelVersion) -> dict[str, Any]:
    """Since the version was loaded. Durations are nanoseconds of requests, but in batch_stats of executions."""
    known = served.engine.statistics
    nothing = Duration()
    return {
        "name": served.name,
        "version": served.version,
        "last_inference": known.last_inference,
        "inference_count": known.images,
        "execution_count": known.executions,
        "inference_stats": {
            "success": _duration(known.success),
            "fail": _duration(known.fail),
            "queue": _duration(known.queue),
            "compute_input": _duration(known.compute_input),
            "compute_infer": _duration(known.compute_infer),
            "compute_output": _duration(known.compute_output),
            "cache_hit": _duration(nothing),
            "cache_miss": _duration(nothing),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(taken),
                "compute_infer": _duration(computed),
                "compute_output": _duration(given),
            }
            for size, (taken, computed, given) in sorted(known.batches.items())
        ],
    }


def _duration(value: Duration) -> dict[str, int]:
    return {"count": value.count, "ns": value.ns}
