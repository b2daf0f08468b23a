"""The application behind its middleware, and the one table of routes: the router, the labels of metrics and
/openapi.json are made from it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from lucidate import __version__
from lucidate.serve import schemas, v1, v2
from lucidate.serve.errors import NotFound, NotReady
from lucidate.serve.middleware import with_middleware
from lucidate.serve.monitoring import CONTENT_TYPE
from lucidate.serve.repository import IndexEntry, Repository
from lucidate.serve.settings import Settings
from lucidate.serve.state import Life, State, state_of

Endpoint = Callable[[Request], Awaitable[Response]]
INFER = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
MODEL = "/v2/models/{model}"
ADMIN = "/v2/repository/models/{model}"
PAGE = Path(str(resources.files("lucidate.serve"))) / "page"
STATIC = StaticFiles(directory=PAGE / "static")
PREDICTING = ("/predict", "/infer")  # routes whose answers the page counts


@dataclass(frozen=True)
class Entry:
    """A route, and what /openapi.json says of it: nothing where it has no summary.

    forms: its paths; the first is its label in metrics. answer: its form in JSON, if it is any. about: what it is.
    responses: its other forms, and errors. parameters: but its path's.
    """

    endpoint: Endpoint
    forms: tuple[str, ...]
    summary: str = ""
    answer: Any = dict[str, Any]
    method: str = "GET"
    about: str = "Answered"
    responses: schemas.Responses = field(default_factory=lambda: schemas.EITHER)
    parameters: tuple[dict[str, Any], ...] = ()
    body: dict[str, Any] | None = None

    def documented(self, path: str) -> APIRoute:
        """A route that nobody asks: FastAPI describes routes of its own kind alone."""
        found = [*schemas.in_path(path), *self.parameters]
        extra: dict[str, Any] = {"parameters": found} if found else {}
        return APIRoute(
            path,
            self.endpoint,
            methods=[self.method],
            tags=["people" if path.startswith("/v1/") else "Open Inference Protocol"],
            summary=self.summary,
            response_model=self.answer,
            response_class=Response if self.answer is None else JSONResponse,
            response_description=self.about,
            responses=self.responses,
            openapi_extra=extra if self.body is None else {**extra, "requestBody": self.body},
        )


async def page(request: Request) -> Response:  # noqa: ARG001
    """Asked for anew each time, so that it fits the server that it came from. It asks nothing of other servers."""
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


async def metrics(request: Request) -> Response:
    state = state_of(request)
    return Response(state.metrics.exposition(state.repository), headers={"Content-Type": CONTENT_TYPE})


def _of_model(verb: str) -> tuple[str, str]:
    """Of a model's current version, and of one that is named."""
    return f"{MODEL}{verb}", f"{MODEL}/versions/{{version}}{verb}"


ROUTES = (  # inference first: they are tried in their order
    Entry(
        v1.predict,
        ("/v1/predict",),
        "What is on one image, or on several",
        schemas.Predictions,
        method="POST",
        responses=schemas.ERRORS,
        parameters=schemas.PREDICT_QUERY,
        body=schemas.images_body(schemas.OneImage, schemas.SeveralImages, examples=schemas.ONE | schemas.SEVERAL),
    ),
    Entry(
        v1.explain,
        ("/v1/explain",),
        "What in an image spoke for its class",
        schemas.Explanation,
        method="POST",
        about="The picture alone where Accept asks for image/png",
        responses={**schemas.ERRORS, 200: {"content": {"image/png": {}}}},
        parameters=schemas.EXPLAIN_QUERY,
        body=schemas.images_body(schemas.OneImage, examples=schemas.ONE),
    ),
    Entry(v1.models, ("/v1/models",), "What is served", list[schemas.Model], responses=schemas.NO_KEY),
    Entry(
        v1.live, ("/v1/live",), "How the server has done for the last minute", schemas.Live, responses=schemas.NO_KEY
    ),
    # Before the routes of one model: a model of this name cannot have statistics of its own without a version.
    Entry(v2.all_statistics, ("/v2/models/stats",), "Statistics of every model"),
    Entry(
        v2.infer,
        _of_model("/infer"),
        "Probabilities of images",
        schemas.InferAnswer,
        method="POST",
        responses={**schemas.EITHER, 200: {"content": {"application/octet-stream": schemas.BYTES}}},
        parameters=schemas.INFER_HEADERS,
        body=schemas.INFER_BODY,
    ),
    Entry(v2.model_ready, _of_model("/ready"), "Whether a model answers"),
    Entry(v2.metadata, _of_model(""), "A model's inputs and outputs"),
    Entry(v2.config, _of_model("/config"), "A model's configuration in Triton's form"),
    Entry(v2.statistics, _of_model("/stats"), "What a model has done, and how long it took"),
    Entry(v2.live, ("/v2/health/live", "/healthz"), "Whether the process answers"),
    Entry(v2.ready, ("/v2/health/ready", "/readyz"), "Whether every model answers"),
    Entry(v2.server, ("/v2",), "The server's name, version and extensions"),
    Entry(v2.server, ("/v2/",)),
    Entry(
        v2.index,
        ("/v2/repository/index",),
        "The models that can be served",
        list[IndexEntry],
        method="POST",
        body=schemas.SMALL_BODY,
    ),
    Entry(
        v2.load,
        (f"{ADMIN}/load",),
        "Read a model anew from its folder; a new version where it has changed",
        method="POST",
        body=schemas.SMALL_BODY,
    ),
    Entry(v2.unload, (f"{ADMIN}/unload",), "Let go of a model", method="POST", body=schemas.SMALL_BODY),
    Entry(
        metrics,
        ("/metrics",),
        "What Prometheus reads",
        None,
        responses={**schemas.EITHER, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    ),
    Entry(page, ("/",)),
    Entry(v1.examples, ("/v1/examples",)),
    Entry(v1.example, ("/v1/examples/{number:int}.png",)),
)
LABELS: dict[Any, str] = {entry.endpoint: entry.forms[0] for entry in reversed(ROUTES)} | {STATIC: "/static"}


def make_app(settings: Settings, repository: Repository, *, life: Life | None = None) -> ASGIApp:
    """The server's application behind its middleware. life: where the caller says how far the server is."""
    state = State(settings, repository, life or Life(ready=True))
    app = FastAPIOffline(  # whose /docs asks nothing of other servers
        title="lucidate",
        version=__version__,
        summary="Image classifiers: for people at /v1, by the Open Inference Protocol at /v2.",
        redoc_url=None,
        static_url="/docs/static",
        favicon_url="/static/icon.svg",
        redirect_slashes=False,  # clients take a redirect for a failure
        exception_handlers={HTTPException: _raised, Exception: _raised},
    )
    app.state.lucidate = state
    app.router.routes += [Route(path, each.endpoint, methods=[each.method]) for each in ROUTES for path in each.forms]
    app.mount("/static", STATIC)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way

    def observe(scope: Scope, status: int, seconds: float) -> None:
        endpoint = scope.get("endpoint")
        if endpoint is None and (found := fast_route(scope)):  # refused before it was routed
            endpoint = found[0]
        path = LABELS.get(endpoint, "other")
        state.metrics.observe(path, status, seconds)
        if status == 200 and path.endswith(PREDICTING):
            state.recent.add(seconds)

    def admit(scope: Scope) -> None:
        """Raises Overloaded where a queue is full: a server that first reads what it will refuse does little else."""
        if (found := fast_route(scope)) is None:
            return
        name = found[1].get("model")
        if name is None and b"model=" in scope["query_string"]:
            name = QueryParams(scope["query_string"]).get("model")
        with suppress(NotFound, NotReady):  # its route says so
            repository.get(name).engine.require_capacity()

    return with_middleware(FastRoutes(app), settings, life=state.life, observe=observe, checks=[admit])


async def _raised(request: Request, error: Exception) -> Response:
    """`ErrorResponses` answers, in the one form that all errors have, and tells the operator."""
    try:
        raise error
    finally:
        del request, error  # which this frame would hold, and the error it, until garbage is collected


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        routes = [entry.documented(path) for entry in ROUTES if entry.summary for path in entry.forms]
        schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=routes)
        schema["components"]["schemas"] |= schemas.of_bodies()
        app.openapi_schema = schema
    return app.openapi_schema


class FastRoutes:
    """The routes that carry the load, found by their path alone; every other is the application's.

    Its routers try one pattern after the other, in layers, which costs a small model's request a tenth of its time.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = fast_route(scope) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        scope["app"] = self.app
        scope["endpoint"], scope["path_params"] = found
        response = await found[0](Request(scope, receive))
        await response(scope, receive, send)


def fast_route(scope: Scope) -> tuple[Endpoint, dict[str, str]] | None:
    """The function that answers a request, and what its path names, for the routes that carry the load; else None."""
    if scope["method"] != "POST":
        return None
    path: str = scope["path"]
    if path == "/v1/predict":
        return v1.predict, {}
    if path.endswith("/infer") and (found := INFER.fullmatch(path)):
        return v2.infer, {name: value for name, value in found.groupdict().items() if value is not None}
    return None
