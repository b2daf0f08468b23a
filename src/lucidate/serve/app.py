"""The application: every route, and one form for every error."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from lucidate import __version__
from lucidate.serve import openapi
from lucidate.serve.errors import RequestError
from lucidate.serve.fast_routes import ClosingConnections, FastRoutes, fast_route, queue_admission
from lucidate.serve.metrics import CONTENT_TYPE, Metrics
from lucidate.serve.middleware import with_middleware
from lucidate.serve.page import page_routes
from lucidate.serve.repository import Repository
from lucidate.serve.settings import Settings
from lucidate.serve.state import Life, State, state_of
from lucidate.serve.v1 import people_router
from lucidate.serve.v2 import answer, v2_routes

PREDICTING = ("/predict", "/infer")  # routes whose answers the page counts


def make_app(settings: Settings, repository: Repository, *, life: Life | None = None) -> ASGIApp:
    """The server's application behind its middleware. life: where the caller says how far the server is."""
    state = State(settings, repository, Metrics(), life or Life(ready=True))
    app = FastAPIOffline(  # whose /docs asks nothing of other servers
        title="lucidate",
        version=__version__,
        summary="Image classifiers: for people at /v1, by the Open Inference Protocol at /v2.",
        redoc_url=None,
        static_url="/docs/static",
        favicon_url="/static/icon.svg",
        redirect_slashes=False,  # clients take a redirect for a failure
        exception_handlers={
            RequestError: _refused,
            HTTPException: _http_error,
            RequestValidationError: _invalid,
            Exception: _raised,
        },
    )
    app.state.lucidate = state
    people, ours = people_router(), [*v2_routes(), Route("/metrics", metrics, methods=["GET"]), *page_routes()]
    app.include_router(people)
    app.router.routes += ours
    openapi.extend(app)
    # The first path of each function is its name in the figures; that of a mount is the application under it.
    paths = {
        getattr(route, "endpoint", getattr(route, "app", None)): getattr(route, "path", "")
        for route in reversed([*people.routes, *ours])
    }

    def observe(scope: Scope, status: int, seconds: float) -> None:
        endpoint = scope.get("endpoint")
        if endpoint is None and (found := fast_route(scope)):  # refused before it was routed
            endpoint = found[0]
        path = paths.get(endpoint, "other")
        state.metrics.observe(path, status, seconds)
        if status == 200 and path.endswith(PREDICTING):
            state.recent.add(seconds)

    return ClosingConnections(
        with_middleware(FastRoutes(app), settings, observe=observe, admit=queue_admission(repository)), state.life
    )


async def metrics(request: Request) -> Response:
    state = state_of(request)
    return Response(state.metrics.exposition(state.repository), headers={"Content-Type": CONTENT_TYPE})


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, RequestError)
    response = answer({"error": error.message}, error.status)
    response.headers.update(error.headers)
    return response


async def _http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """What Starlette's router says: no such path, or not by this method."""
    assert isinstance(error, HTTPException)
    response = answer({"error": str(error.detail)}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return answer({"error": f"{place}: {first['msg']}"}, 422)


async def _raised(request: Request, error: Exception) -> Response:
    """`ErrorResponses` answers, with the request's id, and tells the operator."""
    try:
        raise error
    finally:
        del request, error  # which this frame would hold, and the error it, until garbage is collected
