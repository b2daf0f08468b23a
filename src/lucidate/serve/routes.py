"""The one table of routes: the router, the labels of metrics and /openapi.json are made from it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from lucidate.serve import page_routes as page
from lucidate.serve import schemas, v1, v2
from lucidate.serve.metrics import CONTENT_TYPE
from lucidate.serve.openapi import (
    BYTES,
    ERRORS,
    ONE,
    SEVERAL,
    Operation,
    images_body,
    infer_body,
    optional_body,
)
from lucidate.serve.protocol import infer
from lucidate.serve.state import state_of

Endpoint = Callable[[Request], Awaitable[Response]]
INFER = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
MODEL = "/v2/models/{model}"


@dataclass(frozen=True)
class Entry:
    """A route. forms: its paths; the first is its label in metrics."""

    endpoint: Endpoint
    forms: tuple[str, ...]
    operation: Operation | None = None
    method: str = "GET"


async def metrics(request: Request) -> Response:
    state = state_of(request)
    return Response(state.metrics.exposition(state.repository), headers={"Content-Type": CONTENT_TYPE})


def _of_model(verb: str, endpoint: Endpoint, operation: Operation, method: str = "GET") -> Entry:
    """Of a model's current version, and of one that is named."""
    return Entry(endpoint, (f"{MODEL}{verb}", f"{MODEL}/versions/{{version}}{verb}"), operation, method)


def _image(summary: str, answer: type[BaseModel], query: type[BaseModel], body: dict[str, Any]) -> Operation:
    return Operation(summary, answer, ERRORS, query=query, body=body, tag="people")


def _told(summary: str, answer: Any) -> Operation:
    return Operation(summary, answer, {401: ERRORS[401]}, tag="people")


PREDICT = _image(
    "What is on one image, or on several",
    schemas.Predictions,
    schemas.PredictQuery,
    images_body(schemas.OneImage, schemas.SeveralImages, examples=ONE | SEVERAL),
)
EXPLAIN = replace(
    _image(
        "What in an image spoke for its class",
        schemas.Explanation,
        schemas.ExplainQuery,
        images_body(schemas.OneImage, examples=ONE),
    ),
    about="The picture alone where Accept asks for image/png",
    kinds={"image/png": {}},
)
INFERENCE = Operation(
    "Probabilities of images",
    schemas.InferAnswer,
    kinds={"application/octet-stream": BYTES},
    headers=schemas.InferHeaders,
    body=infer_body(),
)
METRICS = Operation("What Prometheus reads", None, kinds={"text/plain": {"schema": {"type": "string"}}})
LOAD = Operation("Read a model anew from its folder; a new version where it has changed", body=optional_body())
INDEX = Operation("The models that can be served", list[schemas.IndexEntry], body=optional_body())
ADMIN = "/v2/repository/models/{model}"

ROUTES = (  # inference first: they are tried in their order
    Entry(v1.predict, ("/v1/predict",), PREDICT, "POST"),
    Entry(v1.explain, ("/v1/explain",), EXPLAIN, "POST"),
    Entry(v1.models, ("/v1/models",), _told("What is served", list[schemas.Model])),
    Entry(v1.live, ("/v1/live",), _told("How the server has done for the last minute", schemas.Live)),
    # Before the routes of one model: a model of this name cannot have statistics of its own without a version.
    Entry(v2.all_statistics, ("/v2/models/stats",), Operation("Statistics of every model")),
    _of_model("/infer", infer, INFERENCE, "POST"),
    _of_model("/ready", v2.model_ready, Operation("Whether a model answers")),
    _of_model("", v2.metadata, Operation("A model's inputs and outputs")),
    _of_model("/config", v2.config, Operation("A model's configuration in Triton's form")),
    _of_model("/stats", v2.statistics, Operation("What a model has done, and how long it took")),
    Entry(v2.live, ("/v2/health/live", "/healthz"), Operation("Whether the process answers")),
    Entry(v2.ready, ("/v2/health/ready", "/readyz"), Operation("Whether every model answers")),
    Entry(v2.server, ("/v2",), Operation("The server's name, version and extensions")),
    Entry(v2.server, ("/v2/",)),
    Entry(v2.index, ("/v2/repository/index",), INDEX, "POST"),
    Entry(v2.load, (f"{ADMIN}/load",), LOAD, "POST"),
    Entry(v2.unload, (f"{ADMIN}/unload",), Operation("Let go of a model", body=optional_body()), "POST"),
    Entry(metrics, ("/metrics",), METRICS),
    Entry(page.index, ("/",)),
    Entry(page.examples, ("/v1/examples",)),
    Entry(page.example, ("/v1/examples/{number:int}.png",)),
)


def starlette_routes() -> list[BaseRoute]:
    """For the application's router."""
    routes = [Route(path, entry.endpoint, methods=[entry.method]) for entry in ROUTES for path in entry.forms]
    return [*routes, page.static_files()]


def described() -> list[tuple[str, str, Endpoint, Operation]]:
    """For `openapi.describe_routes`."""
    return [
        (path, entry.method, entry.endpoint, entry.operation)
        for entry in ROUTES
        if entry.operation is not None
        for path in entry.forms
    ]


def route_labels(routes: Sequence[BaseRoute]) -> dict[Any, str]:
    """The first path of each function, its label in metrics; that of a mount is the application under it."""
    return {
        getattr(route, "endpoint", getattr(route, "app", None)): getattr(route, "path", "")
        for route in reversed(routes)
    }


def fast_route(scope: Scope) -> tuple[Endpoint, dict[str, str]] | None:
    """The function that answers a request, and what its path names, for the routes that carry the load; else None."""
    if scope["method"] != "POST":
        return None
    path: str = scope["path"]
    if path == "/v1/predict":
        return v1.predict, {}
    if path.endswith("/infer") and (found := INFER.fullmatch(path)):
        return infer, {name: value for name, value in found.groupdict().items() if value is not None}
    return None
