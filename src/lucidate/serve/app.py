"""The application: its routes behind its middleware, and one form for every error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucidate import __version__
from lucidate.serve.errors import NotFound, NotReady, RequestError
from lucidate.serve.metrics import Metrics
from lucidate.serve.middleware import with_middleware
from lucidate.serve.openapi import describe_routes
from lucidate.serve.repository import Repository
from lucidate.serve.routes import described, fast_route, route_labels, starlette_routes
from lucidate.serve.settings import Settings
from lucidate.serve.state import Life, State
from lucidate.serve.v2 import answer

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
            Exception: _raised,
        },
    )
    app.state.lucidate = state
    routes = starlette_routes()
    app.router.routes += routes
    describe_routes(app, described())
    labels = route_labels(routes)

    def observe(scope: Scope, status: int, seconds: float) -> None:
        endpoint = scope.get("endpoint")
        if endpoint is None and (found := fast_route(scope)):  # refused before it was routed
            endpoint = found[0]
        path = labels.get(endpoint, "other")
        state.metrics.observe(path, status, seconds)
        if status == 200 and path.endswith(PREDICTING):
            state.recent.add(seconds)

    return ClosingConnections(
        with_middleware(FastRoutes(app), settings, observe=observe, admit=queue_admission(repository)), state.life
    )


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


async def _raised(request: Request, error: Exception) -> Response:
    """`ErrorResponses` answers, with the request's id, and tells the operator."""
    try:
        raise error
    finally:
        del request, error  # which this frame would hold, and the error it, until garbage is collected


class FastRoutes:
    """The routes that carry the load, found by their path alone; every other is the application's.

    Its routers try one pattern after the other, in layers, which costs a small model's request a tenth of its time.
    Errors go to the middleware, which gives them the same form.
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


def queue_admission(repository: Repository) -> Callable[[Scope], None]:
    """Raises Overloaded for a request that would find its model's queue full.

    Under twice the load that it can bear, a server that first reads and decodes what it will refuse does little else.
    """

    def admit(scope: Scope) -> None:
        if (found := fast_route(scope)) is None:
            return
        name = found[1].get("model")
        if name is None and b"model=" in scope["query_string"]:
            name = QueryParams(scope["query_string"]).get("model")
        with suppress(NotFound, NotReady):  # its route says so
            repository.get(name).engine.require_capacity()

    return admit


class ClosingConnections:
    """At the server's end each answer closes its connection: closed in between, it might just have been used."""

    def __init__(self, app: ASGIApp, life: Life) -> None:
        self.app = app
        self._life = life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._life.closing:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self.app(scope, receive, closing)
