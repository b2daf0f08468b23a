"""What stands between the middleware and the application: a short way to the routes with the load, and the end."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastapi import FastAPI
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucidate.serve.errors import NotFound, NotReady
from lucidate.serve.protocol import infer
from lucidate.serve.repository import Repository
from lucidate.serve.state import Life
from lucidate.serve.v1 import predict

INFER = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")


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


def fast_route(scope: Scope) -> tuple[Callable[[Request], Awaitable[Response]], dict[str, str]] | None:
    """The function that answers a request, and what its path names; None where the application looks for it."""
    if scope["method"] != "POST":
        return None
    path: str = scope["path"]
    if path == "/v1/predict":
        return predict, {}
    if path.endswith("/infer") and (found := INFER.fullmatch(path)):
        return infer, {name: value for name, value in found.groupdict().items() if value is not None}
    return None


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
